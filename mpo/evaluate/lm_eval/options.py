"""Options of the measure that runs lm_eval. No torch."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from mpo.config.training import Precision
from mpo.errors import ConfigError

WHERE = "measure"


class Backend(Enum):
    """What runs the policy: a transformers model, or vLLM's engine."""

    hf = "hf"
    vllm = "vllm"


@dataclass(frozen=True)
class Options:
    """Which tasks are asked of a policy, and how.

    Args:
        tasks: names of tasks, groups or tags.
        fewshot: examples before each question; None for each task's own number.
        limit: so many questions of each task only; None for all.
        apply_chat_template: questions as turns of a chat.
        fewshot_as_multiturn: examples as turns of their own.
        include_path: a folder of task files beside the package's own; one of its tasks hides the package's.
        backend: what runs the policy.
        precision: of its weights and arithmetic.
        batch_size: requests in one forward pass (hf); vLLM takes as many as fit.
        max_length: most tokens of a question with its answer; None for the model's positions.
        tensor_parallel: cards that share the model (vllm).
        gpu_memory: share of a card's memory that the engine takes (vllm).
        seed: of the choice of examples and of sampling; lm_eval's own is 1234.
        allow_unsafe_code: whether tasks may run code that the policy has written.

    Raises:
        ConfigError: a number out of range, no task, a folder that is not there.
    """

    tasks: list[str]
    fewshot: int | None = None
    limit: int | None = None
    apply_chat_template: bool = True
    fewshot_as_multiturn: bool = True
    include_path: str | None = None
    backend: Backend = Backend.hf
    precision: Precision = Precision.bf16
    batch_size: int = 8
    max_length: int | None = None
    tensor_parallel: int = 1
    gpu_memory: float = 0.9
    seed: int = 1234
    allow_unsafe_code: bool = False

    def __post_init__(self) -> None:
        if not self.tasks:
            raise ConfigError("has no value", f"{WHERE}.tasks", "name tasks of lm_eval, e.g. [ifeval,gsm8k]")
        if len(set(self.tasks)) < len(self.tasks):
            raise ConfigError("a task is named twice", f"{WHERE}.tasks", "name it once")
        for name, least in (("fewshot", 0), ("limit", 1), ("batch_size", 1), ("max_length", 1), ("tensor_parallel", 1)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise ConfigError(f"{value} is out of range", f"{WHERE}.{name}", f"give {least} or more")
        if not 0 < self.gpu_memory <= 1:
            raise ConfigError(f"{self.gpu_memory:g} is out of range", f"{WHERE}.gpu_memory", "give a share in (0, 1]")
        if self.include_path is not None and not Path(self.include_path).expanduser().is_dir():
            what = f"there is no folder {self.include_path}"
            raise ConfigError(what, f"{WHERE}.include_path", "name one of task files")
