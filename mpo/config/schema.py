"""The typed shape of a composed configuration; one dataclass a config group.

OmegaConf merges the composed YAML into :class:`RunConfig`, so a misspelt key or a wrong type is an error with the
key's name. Limits of a single value are checked in ``__post_init__`` of the records that own them or in
:mod:`mpo.pipeline.rules`, where groups meet. ``_target_`` groups (loss, partition, sampler, scorer) stay mappings
here: they are merged into the dataclass that they name by :mod:`mpo.config.targets`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from omegaconf import MISSING

from mpo.config.training import Precision, TrainConfig


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
