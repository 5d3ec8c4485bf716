"""What a policy is worth: one file a measure."""

from mpo.evaluate.base import Evidence, Measure, Samples
from mpo.evaluate.records import Baseline, Distribution, Estimate, Findings, SampleRow

__all__ = ["Baseline", "Distribution", "Estimate", "Evidence", "Findings", "Measure", "SampleRow", "Samples"]
