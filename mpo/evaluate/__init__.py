"""What a policy is worth: one file or folder a measure."""

from mpo.evaluate.base import Evidence, Measure, Samples
from mpo.evaluate.benchmark import Benchmark
from mpo.evaluate.prompts import prompt_keys
from mpo.evaluate.questions import Answer, Decoding, Question
from mpo.evaluate.records import Baseline, Distribution, Estimate, Findings, PromptValues, SampleRow

__all__ = [
    "Answer", "Baseline", "Benchmark", "Decoding", "Distribution", "Estimate", "Evidence", "Findings", "Measure",
    "PromptValues", "Question", "SampleRow", "Samples", "prompt_keys",
]  # fmt: skip
