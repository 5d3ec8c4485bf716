"""Which scorers a run has, whether they fit the rest, and the stages in which they score. No torch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from mpo.cache.stage import Stage
from mpo.config.schema import RunConfig, SampleConfig, SftResponses, ThinkingConfig
from mpo.config.targets import OWN, TARGET, build, resolve
from mpo.data.sources.base import Source
from mpo.errors import ConfigError
from mpo.pipeline.needs import samples
from mpo.pipeline.stage_configs import allowed, here, outside, side_by_side
from mpo.score.base import Scorer, scorer_name
from mpo.score.checked import errors_of
from mpo.stages.nodes import score, train
from mpo.types import OWN_SCORE

OWN_SCORER = "give your own: score=function score.function=package.module.name"
Nodes = dict[str, dict[str, Any]]


def scorer_nodes(config: RunConfig) -> Nodes:
    """The nodes of the run's scorers by the name that their scores get; the first one's train, the others are
    reported beside them. None where the data's own scores are taken.

    Raises:
        ConfigError: two of one name.
    """
    if TARGET not in config.score:
        if config.score_also:
            what = "scorers beside the data's own scores, of which there are none for sampled responses"
            raise ConfigError(what, "score_also", "name the one that trains first: 'score=[skywork_v2,armorm]'")
        return {}
    found: Nodes = {}
    for key, node in (
        ("score", config.score),
        *((f"score_also.{name}", one) for name, one in config.score_also.items()),
    ):
        name = scorer_name(node)
        if name in found:
            raise ConfigError(f"two scorers are called '{name}'", key, f"give one another name: {key}.name=…")
        found[name] = dict(node)
    return found


def build_scorers(config: RunConfig) -> Iterator[tuple[str, Scorer]]:
    """The run's scorers by their configuration key; raises as :func:`mpo.config.targets.build` does."""
    keys = ["score", *(f"score_also.{name}" for name in config.score_also)]
    for key, node in zip(keys, scorer_nodes(config).values(), strict=True):
        with errors_of(key):
            scorer = build(node, Scorer, config.allow_targets, key)  # type: ignore[type-abstract]
        yield key, scorer


def check_scorers(config: RunConfig, source: Source) -> None:
    """Raise ConfigError for scorers that nobody asks, for want of one, and for one that does not fit the data."""
    nodes = scorer_nodes(config)
    if not samples(config):
        if nodes and config.regime.imitate is None:
            what = f"{config.regime.name} reads the data's own scores, this scorer would not be asked"
            raise ConfigError(what, "score", "add score=data, or regime=on_policy")
        return
    if not nodes:
        if config.dry_run:  # a plan can be made without
            return
        raise ConfigError("sampled responses need a scorer", "score", OWN_SCORER)
    if config.dry_run and not all(str(value).startswith(OWN) for node in nodes.values() for value in _code(node)):
        return  # nor does it need the scorer's packages
    for _, scorer in build_scorers(config):
        if scorer.only_for not in (None, source.name):
            raise ConfigError(f"it knows the prompts of '{scorer.only_for}' alone", "score", OWN_SCORER)


def _code(node: Mapping[str, object]) -> list[object]:
    return [node[key] for key in (TARGET, "function") if key in node]


def score_names(config: RunConfig, source: Source) -> tuple[str, str]:
    """Names of the scores that sets are trained on, and that held-out ones are judged by."""
    nodes = scorer_nodes(config) if samples(config) else {}
    if not nodes:
        return OWN_SCORE, OWN_SCORE
    first = next(iter(nodes))
    return first, scorer_name(source.true_scorer) if source.true_scorer else first


def training_rewards(config: RunConfig, source: Source) -> train.Rewards | None:
    """What scores responses while a policy is trained, if anything does: the true reward where the data knows it, else
    a scorer of the run that takes no time."""
    nodes = [source.true_scorer] if source.true_scorer else list(scorer_nodes(config).values())[:1]
    if not config.train.reward_prompts or not samples(config) or not nodes or nodes[0].get("immediate") is not True:
        return None
    if config.regime.imitate is SftResponses.all:  # each response is a set of its own then
        return None
    decoding = SampleConfig(n=1, max_new_tokens=config.sample.max_new_tokens)
    thinking = config.model.thinking
    return train.Rewards(dict(nodes[0]), decoding, replace(thinking, scored=False) if source.true_scorer else thinking)


def score_stage(name: str, config: RunConfig, source: Source, sampled: Stage) -> Stage:
    """Scores for what ``sampled`` has drawn to train on; held-out sets are judged by the true reward, where the data
    knows it: a proxy applies to training only."""
    nodes = scorer_nodes(config) or {scorer_name(config.score): dict(config.score)}  # a plan needs none
    if source.true_scorer is None:
        return _score_stage(name, nodes, nodes, config, sampled, config.model.thinking)
    true = dict(source.true_scorer)
    others = dict(list(nodes.items())[1:])
    return _score_stage(name, nodes, {scorer_name(true): true, **others}, config, sampled, config.model.thinking)


def true_score_stage(config: RunConfig, truth: Mapping[str, Any], sampled: Stage) -> Stage:
    """The true reward of what ``sampled`` has drawn to evaluate: of answers, whether or not thoughts are scored."""
    nodes = {scorer_name(truth): dict(truth)}
    return _score_stage(f"{sampled.name}/score", nodes, nodes, config, sampled, ThinkingConfig())


def _score_stage(
    name: str, scorers: Nodes, heldout: Nodes, config: RunConfig, sampled: Stage, thinking: ThinkingConfig
) -> Stage:
    every = [*scorers.values(), *heldout.values()]
    # Whichever of several scores trains, the same stage computes them.
    allow = list(dict.fromkeys(prefix for node in scorers.values() for prefix in allowed(node, config)))
    shown = replace(thinking, trained=True) if thinking.scored else ThinkingConfig()
    parts = [_apart(dict(sorted(nodes.items())), config) for nodes in (scorers, heldout)]
    slices = score.Config(parts[0][0], parts[1][0], allow, shown)
    settings = score.Settings(parts[0][1], parts[1][1])
    models = {
        scorer_name(node): outside(node["path"], node.get("revision"))
        for node in every
        if isinstance(node.get("path"), str)
    }
    immediate = all(node.get("immediate") is True for node in every)
    placement = here(True) if immediate else side_by_side(every, Scorer, "score", config)
    return score.TASK.stage(name, slices, settings, score.Inputs(sampled, models), placement)


def _apart(nodes: Nodes, config: RunConfig) -> tuple[Nodes, Nodes]:
    """``nodes`` without the options that change no score, and these options, where a node has any."""
    free = {name: _change_no_score(node, config) for name, node in nodes.items()}
    kept = {name: {key: node[key] for key in node if key not in free[name]} for name, node in nodes.items()}
    apart = {name: {key: node[key] for key in node if key in free[name]} for name, node in nodes.items()}
    return kept, {name: options for name, options in apart.items() if options}


def _change_no_score(node: Mapping[str, Any], config: RunConfig) -> frozenset[str]:
    try:
        return resolve(node, Scorer, config.allow_targets, "score").change_no_score  # type: ignore[type-abstract]
    except ConfigError:  # a plan needs neither it nor its packages
        return frozenset()
