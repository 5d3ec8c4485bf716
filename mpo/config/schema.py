"""The typed shape of a composed configuration; one dataclass a config group.

OmegaConf merges the composed YAML into :class:`RunConfig`, so a misspelt key or a wrong type is an error with the
key's name. Limits of a single value are checked in ``__post_init__`` of the records that own them or in
:mod:`mpo.pipeline.rules`, where groups meet. ``_target_`` groups (loss, partition, sampler, scorer) stay mappings
here: they are merged into the dataclass that they name by :mod:`mpo.config.targets`.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from enum import Enum
from typing import Any

from omegaconf import MISSING


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


class SftResponses(Enum):
    """Which responses of a set supervised fine-tuning imitates."""

    best = "best"
    all = "all"


class Unwanted(Enum):
    """What becomes of a sampled response that has a fault."""

    keep = "keep"
    drop = "drop"
    redraw = "redraw"


class Direction(Enum):
    """Whether a sweep looks for a large value or a small one."""

    maximize = "maximize"
    minimize = "minimize"


class SweepMethod(Enum):
    """How a sweep chooses its settings (:mod:`mpo.sweeps.methods`)."""

    grid = "grid"
    random = "random"
    tpe = "tpe"


class RoundReference(Enum):
    """Which policy is the reference of a round, unless ``model.reference`` names one."""

    newest = "newest"  # that the round starts from
    starting = "starting"  # that the run starts from


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


@dataclass
class ScratchConfig:
    """A starting policy trained from scratch: random weights, a tokenizer, then supervised fine-tuning."""

    tokenizer: str = "bpe"  # "bpe": trained on the data; "source": the data source's own
    vocab_size: int = 4096
    sft: TrainConfig = field(default_factory=TrainConfig)
    responses: SftResponses = SftResponses.all
    seed: int = 0  # of weights and of the order of the examples: the starting policy is one for all run seeds


@dataclass
class ThinkingConfig:
    """Marks around the thought that a model writes before its answer; without them a response is one text."""

    start: str | None = None  # e.g. <think>, where the response does not have it the chat template has
    end: str | None = None  # e.g. </think>
    scored: bool = False  # scorers read the thought, between its marks, before the answer
    trained: bool = True  # losses are of all drawn tokens; false: of those after the thought


@dataclass
class ModelConfig:
    """The starting policy: a hub name or folder, or ``scratch``."""

    path: str | None = None
    revision: str | None = None
    tokenizer: str | None = None  # another folder or hub name than ``path``
    chat_template: str | None = None  # a template of mpo/data/templates that replaces the tokenizer's own
    template_arguments: dict[str, Any] = field(default_factory=dict)  # of the chat template, e.g. enable_thinking
    thinking: ThinkingConfig = field(default_factory=ThinkingConfig)
    trust_remote_code: bool = False
    architecture: dict[str, Any] = field(default_factory=dict)  # transformers' config values: plan and scratch models
    parameters: int | None = None
    stop_token_ids: list[int] = field(default_factory=list)
    scratch: ScratchConfig | None = None
    # Another reference than the policy that training starts from: hub name or folder; "none" forbids a reference.
    reference: str | None = None
    beta: float = 0.01  # what losses on the log-ratio take as their beta (MPO table 10 gives it by model)


@dataclass
class ScoreTransformConfig:
    """Applied to scores before the partition, in this order."""

    scale: float = 1.0
    zscore: bool = False
    noise_sigma: float = 0.0
    noise_seed: int = 0


@dataclass
class DataConfig:
    """Where response sets come from, and which are held out."""

    source: Any = MISSING  # hub name, local file, or the _target_ node of a source class
    layout: str = "auto"
    split: str = "train"
    revision: str | None = None
    score_field: str | None = None
    heldout_source: str | None = None  # another file or hub name whose sets are held out
    heldout_split: str | None = None  # or another split of the same source
    heldout: float = 0.1  # else: share of the prompts below 1, number of prompts from 1
    fraction: float = 1.0  # share of the training prompts that is used (MPO figure 5)
    limit: int | None = None  # first sets only
    split_seed: int = 0
    max_prompt_tokens: int = 1800
    max_tokens: int = 2048  # prompt and response together
    max_skipped_share: float = 0.1  # unusable rows above this share stop the run
    score: ScoreTransformConfig = field(default_factory=ScoreTransformConfig)
    # Estimates for the plan where nothing has been read yet (sets, held-out ones where they are sets of their own,
    # responses per set, tokens).
    expected_sets: int | None = None
    expected_heldout: int | None = None
    expected_responses: int | None = None
    expected_prompt_tokens: int | None = None
    expected_response_tokens: int | None = None


@dataclass
class SampleConfig:
    """Responses drawn from a policy."""

    n: int = 5
    temperature: float = 1.0
    top_p: float = 1.0
    max_new_tokens: int = 2048
    precision: Precision = Precision.fp32
    empty: Unwanted = Unwanted.keep  # a response without any text
    cut: Unwanted = Unwanted.keep  # one that max_new_tokens has cut off
    duplicates: Unwanted = Unwanted.keep  # one with the text of another to the same prompt
    redraws: int = 3  # times that what is to be redrawn is; what is unwanted then is dropped


@dataclass
class EvaluateConfig:
    """Measures of the trained policy, and the responses to held-out prompts that some of them read."""

    measures: dict[str, Any] = field(default_factory=dict)  # _target_ nodes of measure classes by a name of one's own
    batch: int = 16  # sets forwarded at once
    prompts: int | None = None  # first held-out prompts that are sampled; None: all
    samples: int = 8  # responses a held-out prompt and temperature
    temperatures: list[float] = field(default_factory=lambda: [1.0, 0.7])


@dataclass
class RegimeConfig:
    """What happens in each round; how many there are, ``rounds``, stands at the top level."""

    name: str = "off_policy"
    samples: bool = False  # responses are drawn from the newest policy, not the data's own
    imitate: SftResponses | None = None  # supervised fine-tuning on these responses, one by one
    reference: RoundReference = RoundReference.newest
    carry_optimizer: bool = False  # a round goes on with the optimizer's state of the round before
    partition: str = "mpo.partition.Mean"  # what losses on sets take by default
    kept: int | None = None  # rankings by default keep so many of the best and the worst; None: all


@dataclass
class LauncherConfig:
    """Processes of a distributed stage: ``nodes`` machines with ``processes`` each, met at ``rendezvous``."""

    processes: int = 1
    nodes: int = 1
    node_rank: int = 0
    rendezvous: str = "localhost:0"  # host:port of the first machine; needed with several
    threads: int | None = None  # CPU threads a process; default: cores shared out
    device: str | None = None  # card that a dry run is a plan for, see mpo.planning.cards; null: the machine's own


@dataclass
class SweepConfig:
    """What ``+sweep=NAME`` looks for, and how it chooses settings; the space is Hydra's ``hydra.sweeper.params``."""

    metric: str | None = None  # key of an estimate, as in W&B: heldout/true_reward@1; without /roundN the last round's
    direction: Direction = Direction.maximize
    method: SweepMethod = SweepMethod.grid
    trials: int = 20  # settings that random and tpe try
    seed: int = 0  # of their draws
    stop_behind: bool = False  # end members whose train.keep_best metric is below the median of finished ones


@dataclass
class RunConfig:
    """The complete run configuration."""

    seed: int = 0
    name: str = ""
    rounds: int = 1  # of sampling and training
    round_lr: list[float] = field(default_factory=lambda: [1.0])  # shares of train.lr by round; the last one stays
    round_beta: list[float] = field(default_factory=lambda: [1.0])  # shares of loss.beta, likewise
    dry_run: bool = False
    cache_dir: str = MISSING
    results: str = MISSING  # folder of the store in which finished runs are recorded
    allow_targets: list[str] = field(default_factory=list)  # prefixes beside "mpo." that _target_ may name
    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    sample: SampleConfig = field(default_factory=SampleConfig)
    sampler: dict[str, Any] = field(default_factory=dict)
    score: dict[str, Any] = field(default_factory=dict)
    score_also: dict[str, Any] = field(default_factory=dict)  # nodes of further scorers, by a name of one's own
    partition: dict[str, Any] = field(default_factory=dict)
    loss: dict[str, Any] = field(default_factory=dict)
    regime: RegimeConfig = field(default_factory=RegimeConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    evaluate: EvaluateConfig = field(default_factory=EvaluateConfig)
    logger: dict[str, Any] = field(default_factory=dict)  # _target_ nodes of loggers by a name of one's own
    launcher: LauncherConfig = field(default_factory=LauncherConfig)
    sweep: SweepConfig = field(default_factory=SweepConfig)

    def lr_of(self, number: int) -> float:
        """The learning rate of round ``number``, which counts from 1."""
        return self.train.lr * self.round_lr[min(number, len(self.round_lr)) - 1]

    def loss_of(self, number: int) -> dict[str, Any]:
        """The loss's node in round ``number``."""
        share = self.round_beta[min(number, len(self.round_beta)) - 1]
        return dict(self.loss) if share == 1 else {**self.loss, "beta": self.loss["beta"] * share}
