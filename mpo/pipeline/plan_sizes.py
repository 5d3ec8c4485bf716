"""How much a plan is about: sets to train on and prompts to draw responses to, counted or expected."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from mpo.cache.artifacts import Store, read_json
from mpo.config.files import DATA_SUFFIXES, is_local
from mpo.config.schema import DataConfig, RunConfig
from mpo.data.estimate import Sketch, sketch
from mpo.data.sources import Mixture, Source
from mpo.data.sources.recorded import Recorded
from mpo.data.tokens import SUMMARY
from mpo.partition import Partition
from mpo.pipeline.graph import Graph
from mpo.pipeline.needs import responses_a_set
from mpo.pipeline.plan_parts import mixed
from mpo.planning.data_size import DataSize, data_size, heldout_size, imitated


@dataclass(frozen=True)
class Prompts:
    """Expected prompts and lengths.

    Attributes:
        train: to train on, in a round.
        heldout: None where their number is not known.
        prompt_tokens: mean.
        response_tokens: mean that the data lets expect; None where it says nothing.
    """

    train: int
    heldout: int | None
    prompt_tokens: int
    response_tokens: int | None


def looked_at(data: DataConfig, source: Source, parts: Mapping[str, Sketch | None]) -> DataConfig:
    """``data`` with what it does not say of its size, as the beginning of a local file, or those of a mixture's
    ``parts``, let expect it."""
    found = None
    if isinstance(source, Mixture):
        found = mixed(source, parts)
    elif isinstance(source, Recorded) and is_local(data.source, DATA_SUFFIXES):
        spec = replace(source.spec, path_or_name=str(Path(data.source).expanduser()))
        found = sketch(spec, data.max_prompt_tokens, data.max_tokens)
    if found is None:
        return data
    return replace(
        data,
        expected_sets=data.expected_sets or found.sets,
        expected_responses=data.expected_responses or found.responses or None,
        expected_prompt_tokens=data.expected_prompt_tokens or found.prompt_tokens,
        expected_response_tokens=data.expected_response_tokens or found.response_tokens or None,
    )


def expected_sets(config: RunConfig, data: DataConfig, source: Source) -> DataSize | None:
    """One round's training data as ``data`` expects them, whatever is there already."""
    return data_size(data, source, responses_a_set(replace(config, data=data)), config.rounds)


def training_sets(config: RunConfig, data: DataConfig, source: Source, graph: Graph, store: Store) -> DataSize | None:
    """One round's training data: counted where the first round's are tokenised, else as ``data`` expects them."""
    prepare = graph.rounds[0].prepare
    if store.complete(prepare):
        stats = read_json(store.path(prepare) / "train" / SUMMARY)["stats"]
        if stats["responses"]:
            return DataSize(
                sets=stats["sets"],
                responses=round(stats["responses"] / stats["sets"]),
                prompt_tokens=round(stats["prompt_tokens"] / stats["sets"]),
                response_tokens=round(stats["response_tokens"] / stats["responses"]),
            )
    return expected_sets(config, data, source)


def forwarded(config: RunConfig, sets: DataSize, source: Source, partition: Partition) -> DataSize:
    """What a training forwards of its sets: each response by itself where it is imitated, else those that the partition
    keeps."""
    imitate = config.regime.imitate
    if imitate is None:
        return replace(sets, responses=partition.keeps(sets.responses))
    return replace(sets, responses=1) if config.regime.samples else imitated(sets, source, imitate)


def expected_prompts(config: RunConfig, data: DataConfig, source: Source) -> Prompts | None:
    """Prompts to draw responses to, as ``data`` expects them; None where it says nothing of them."""
    known = data.expected_response_tokens
    drawn = replace(data, expected_response_tokens=known or config.sample.max_new_tokens)
    found = data_size(drawn, source, config.sample.n, config.rounds)
    if found is None:
        return None
    return Prompts(found.sets, heldout_size(data, source, config.rounds), found.prompt_tokens, known)
