"""Rules for what a training does with held-out sets. No torch."""

from __future__ import annotations

from mpo.config.schema import RunConfig
from mpo.config.training import MemoryChoice, TrainConfig
from mpo.config.wording import hint
from mpo.data.sources.base import Source
from mpo.errors import ConfigError
from mpo.pipeline.scoring import training_rewards
from mpo.planning.memory import effective_stage
from mpo.train.best import HIGHER, LOSS, REWARD


def check_evaluation(key: str, train: TrainConfig, config: RunConfig, source: Source) -> None:
    """Raise ConfigError for a choice by evaluations that never take place, or by a number that they do not have.

    Args:
        key: of the training, ``train`` or ``model.scratch.sft``.
    """
    metric = train.keep_best
    if metric is not None and metric not in HIGHER:
        raise ConfigError(f"evaluations have no '{metric}'", f"{key}.keep_best", hint(metric, HIGHER))
    if train.stop_after is not None and metric is None:
        what = "no metric is named that would have to improve"
        raise ConfigError(what, f"{key}.stop_after", f"add {key}.keep_best=heldout/accuracy, or leave it out")
    if train.reward_prompts:
        _check_rewards(key, train, config, source)
    elif metric == REWARD:
        what = f"'{metric}' is never computed, as no responses are drawn"
        remedy = f"add {key}.reward_prompts=100, say" if key == "train" else f"choose {LOSS}"
        raise ConfigError(what, f"{key}.keep_best", remedy)
    if train.stop_behind and metric is None:
        remedy = f"add {key}.keep_best=heldout/accuracy, or leave it out"
        raise ConfigError("it needs keep_best, whose metric it compares", f"{key}.stop_behind", remedy)
    if not train.evaluate_every:
        if metric is not None:
            what = f"'{metric}' is never computed, as nothing is evaluated"
            raise ConfigError(what, f"{key}.keep_best", f"add {key}.evaluate_every=50, say, or leave it out")
        return
    imitates = config.regime.imitate is not None and not config.regime.samples
    of_start = key != "train"
    if (of_start or imitates) and source.read_demonstrations() is not None:
        raise ConfigError("no demonstrations are held out", f"{key}.evaluate_every", "leave it out")
    data = config.data
    if (
        isinstance(data.source, str)
        and data.heldout == 0
        and data.heldout_source is None
        and data.heldout_split is None
    ):
        raise ConfigError("no sets are held out to evaluate on", f"{key}.evaluate_every", "raise data.heldout")
    if metric not in (None, LOSS, REWARD) and (of_start or config.regime.imitate is not None):
        what = f"'{metric}' compares responses of one prompt, but each is imitated alone"
        raise ConfigError(what, f"{key}.keep_best", f"choose {LOSS}")


def _check_rewards(key: str, train: TrainConfig, config: RunConfig, source: Source) -> None:
    where = f"{key}.reward_prompts"
    if not train.evaluate_every:
        raise ConfigError("responses are drawn when the training is evaluated, which it is not", where,
                          f"add {key}.evaluate_every=50, say")  # fmt: skip
    chosen = train.memory is MemoryChoice.auto and train.zero_stage is None  # then another one is
    group = config.launcher.processes * config.launcher.nodes
    if not chosen and effective_stage(train, train.settled.zero_stage, group) == 3:
        raise ConfigError("no process has the whole weights to draw responses with", where, f"add {key}.zero_stage=2")
    if key != "train" or training_rewards(config, source) is None:
        what = "no scorer of this run can be called during training"
        remedy = "leave it out; in a regime that samples, score=function score.immediate=true can"
        raise ConfigError(what, where, remedy)
