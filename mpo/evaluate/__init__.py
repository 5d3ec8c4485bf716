"""What a policy is worth: one file a measure."""

from mpo.evaluate.base import Evidence, Measure, Samples
from mpo.evaluate.prompts import prompt_keys
from mpo.evaluate.records import Baseline, Distribution, Estimate, Findings, PromptValues, SampleRow

__all__ = [
    "Baseline", "Distribution", "Estimate", "Evidence", "Findings", "Measure", "PromptValues", "SampleRow", "Samples",
    "prompt_keys",
]  # fmt: skip
