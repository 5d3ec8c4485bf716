"""The typed shape of a training stage's configuration, ``train`` and ``model.scratch.sft``."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from enum import Enum


class Precision(Enum):
    """Arithmetic of the forward and backward pass; master weights, log-softmax and sums are float32 in both."""

    fp32 = "fp32"
    bf16 = "bf16"


class Schedule(Enum):
    """Learning-rate schedules after the linear warm-up (names of ``transformers.get_scheduler``)."""

    cosine = "cosine"
    linear = "linear"
    constant = "constant_with_warmup"
    inverse_sqrt = "inverse_sqrt"


class Offload(Enum):
    """What ZeRO keeps in CPU memory: nothing, the optimizer, or optimizer and parameters (ZeRO 3)."""

    none = "none"
    optimizer = "optimizer"
    parameters = "parameters"


class MemoryChoice(Enum):
    """What becomes of a training's memory settings that are null, see :class:`MemorySettings`."""

    auto = "auto"  # the fastest that are expected to fit the card, see mpo.planning.fitting
    given = "given"  # always the same ones


class Quantization(Enum):
    """How the weights under adapters may be held: in 4 bits (QLoRA, arXiv 2305.14314)."""

    nf4 = "nf4"


@dataclass
class LoraConfig:
    """Low-rank adapters (peft) instead of full training. ``target_modules`` empty: every linear layer."""

    rank: int = 16
    alpha: float = 32.0
    target_modules: list[str] = field(default_factory=list)
    quantization: Quantization | None = None  # of the frozen weights


@dataclass(frozen=True)
class MemorySettings:
    """How a training lies in memory, for its speed alone: updates are the same but for rounding.

    The defaults are what ``train.memory=given`` puts in place of null, but for the stage of weights in 4 bits.
    """

    zero_stage: int = 3
    offload: Offload = Offload.none
    activation_checkpointing: int = 1
    micro_tokens: int = 16384
    sequence_parallel: int = 1

    @property
    def row_tokens(self) -> int:
        """Most tokens of a micro-batch, which is one process's or that of so many together."""
        return self.micro_tokens * self.sequence_parallel


@dataclass
class TrainConfig:
    """One training stage. Batches count response sets, not responses."""

    lr: float = 5e-7
    schedule: Schedule = Schedule.cosine
    warmup_ratio: float = 0.1
    epochs: int = 1
    max_steps: int | None = None  # stop early; the schedule still spans this number where it is set
    global_batch: int = 128  # sets per optimizer step, over all processes and accumulated micro-batches
    micro_batch: int = 2  # sets that a process forwards at once
    weight_decay: float = 0.0
    adam_beta1: float = 0.9
    adam_beta2: float = 0.999
    adam_eps: float = 1e-8
    clip: float = 1.0  # global gradient norm; 0 leaves gradients alone
    precision: Precision = Precision.bf16
    memory: MemoryChoice = MemoryChoice.given  # who chooses those of the next five that are null
    zero_stage: int | None = None
    offload: Offload | None = None
    activation_checkpointing: bool | int | None = None  # every n-th layer computed again in backward: 1 all, 0 none
    micro_tokens: int | None = None  # that a process forwards at once; a set above that is forwarded in pieces
    sequence_parallel: int | None = None  # neighbouring processes that forward each micro-batch together (Ulysses)
    zero_hpz: bool = False  # ZeRO 3 keeps a second copy of the weights in shards within each machine (ZeRO++'s hpZ)
    compile: bool | None = None  # norms and gates fused by torch.compile; null: on CUDA
    lora: LoraConfig | None = None
    checkpoint_every: int = 0  # optimizer steps between checkpoints; 0: they don't count
    checkpoint_minutes: float = 15.0  # minutes between checkpoints; 0: they don't count
    checkpoint_async: bool = True  # checkpoints are copied to host memory, and written while training goes on
    keep_checkpoints: int = 2  # the newest may turn out damaged
    closed_form_check: bool = True  # stop if the loss at step 0 is not its closed form at policy = reference
    evaluate_every: int = 0  # optimizer steps between looks at the held-out sets; 0: none
    keep_best: str | None = None  # export the policy that was best by this metric, e.g. heldout/accuracy
    stop_after: int | None = None  # evaluations without improvement of keep_best's metric that end the training
    stop_behind: list[float] = field(default_factory=list)  # what keep_best's metric has to reach by each evaluation
    stop_if_diverged: bool = False  # else a warning says so
    reward_prompts: int = 0  # first held-out prompts to which each evaluation draws a response and scores it; 0: none
    profile: bool = False  # record where the time of a few steps goes; changes nothing else

    @property
    def open(self) -> list[str]:
        """Names of the memory settings that are null."""
        return [each.name for each in fields(MemorySettings) if getattr(self, each.name) is None]

    @property
    def settled(self) -> MemorySettings:
        """The memory settings, those of :class:`MemorySettings` in place of null.

        Over weights in 4 bits ZeRO 2, for stage 3 does not spread them.
        """
        given = {each.name: getattr(self, each.name) for each in fields(MemorySettings) if each.name not in self.open}
        if "activation_checkpointing" in given:
            given["activation_checkpointing"] = int(given["activation_checkpointing"])
        if self.lora is not None and self.lora.quantization is not None:
            given.setdefault("zero_stage", 2)
        return MemorySettings(**given)


FREE = (
    *("checkpoint_every", "checkpoint_minutes", "checkpoint_async", "keep_checkpoints"),
    *("micro_tokens", "sequence_parallel", "zero_hpz", "stop_if_diverged", "profile"),
)
"""Settings of a training that cannot change its result."""
