"""Lines of the plan on sampling and scoring, and, for a named card, on the hours of a round.

They are read off the graph: every stage that draws or scores counts, the held-out prompts' and the measures' too.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from mpo.cache.artifacts import Store
from mpo.cache.stage import Placement, Stage
from mpo.config.files import DATA_SUFFIXES, is_local
from mpo.config.schema import RunConfig
from mpo.config.targets import OWN, TARGET, build
from mpo.config.training import Precision
from mpo.evaluate.questions import GREEDY
from mpo.pipeline.graph import Graph
from mpo.pipeline.plan_sizes import Prompts
from mpo.planning.cards import BANDWIDTH_UTILISATION, UTILISATION, Card, named_card
from mpo.planning.drawing import Drawing, Engine, at_once, draw_flops, draw_seconds
from mpo.planning.sizes import Architecture
from mpo.sample.base import Sampler
from mpo.score.base import Scorer
from mpo.score.model_scorer import ModelScorer
from mpo.stages.nodes import answers, sample, score
from mpo.track.units import count, duration, number, percent
from mpo.track.units import memory as size

PROMPTS_LOOKED_AT = 4096
"""Prompts whose batches a sampler is asked for, to know how many it draws together."""


@dataclass(frozen=True)
class Part:
    """Work of one kind: the plan's line on it, its seconds on the named cards in a round and in the whole run (None
    where they are not known), and bytes that a hub sends for it."""

    name: str
    line: str
    a_round: float | None = None
    in_all: float | None = None
    download: int = 0


def drawing_parts(
    config: RunConfig, graph: Graph, store: Store, shape: Architecture | None, prompts: Prompts | None
) -> list[Part]:
    """Sampling, then each reward model; nothing where the run draws no responses."""
    stages = list(graph.stages(store))
    draws = [stage for stage in stages if stage.task == sample.TASK.name]
    answered = [_answering(stages)] if any(stage.task == answers.TASK.name for stage in stages) else []
    if not draws:
        return answered
    if prompts is None:
        return [Part("sampling", "size known once the prompts are read"), *answered]
    of_round = {stage.name for stage in graph.rounds[0].drawn}
    scores = [stage for stage in stages if stage.task == score.TASK.name]
    drawn = _sampling(config, draws, of_round, shape, prompts)
    return [drawn, *_scoring(config, scores, of_round, prompts), *answered]


def hours_line(parts: Sequence[Part], rounds: int) -> str:
    """What a round and the whole run take on the named cards, and what of it is not known."""
    in_all = {part.name: part.in_all for part in parts if part.in_all is not None}
    a_round = {part.name: part.a_round for part in parts if part.a_round} if rounds > 1 else in_all
    text = " + ".join(f"{name} {duration(seconds)}" for name, seconds in a_round.items())
    text += f" = about {duration(sum(a_round.values()))}"
    text += f" a round, {duration(sum(in_all.values()))} in all" if rounds > 1 else ""
    if unknown := [part.name for part in parts if part.in_all is None]:
        text += f", without {', '.join(unknown)}, of which that is not known"
    return f"{text}; loading models, checkpoints and what measures compute are not counted"


def _sampling(
    config: RunConfig, stages: Sequence[Stage], of_round: set[str], shape: Architecture | None, prompts: Prompts
) -> Part:
    """What is drawn to train on in a round, and for the measures in all."""
    drawn = {stage.name: _drawing(stage, prompts) for stage in stages}
    mine = [each for name, each in drawn.items() if name in of_round]
    others = [drawn[stage.name].total for stage in stages if "train" not in stage.config.splits]
    shown = mine or [*drawn.values()]  # where the measures alone draw, it is in all
    words = [_asked(config, each, prompts) for each in mine]
    words += [f"{sum(others):,} responses in all for the measures"] if others else []
    if prompts.heldout is None:
        words.append("held-out prompts are not counted, their number is known once they are read")
    if shape is None:
        return Part("sampling", ", ".join(words))
    words.append(f"{number(sum(draw_flops(shape, each) for each in shown) / 1e12)} TFLOP")
    text, card = ", ".join(words), named_card(config)
    if card is None:
        return Part("sampling", text)
    first = next(stage for stage in stages if drawn[stage.name] is shown[0])
    engine = _engine(config, card, first, shown[0])
    if engine is None:
        return Part("sampling", f"{text}; its time is not known for this sampler")
    a_round, in_all = _seconds(shape, mine, engine), _seconds(shape, [*drawn.values()], engine)
    longest = _seconds(shape, [each.longest for each in shown], engine)
    if a_round is None or in_all is None:
        return Part("sampling", f"{text}; weights and one response do not fit {_space(engine)}")
    taken = duration(a_round if mine else in_all)
    text += f"; about {taken}" if prompts.response_tokens else f"; at most {taken}"
    if prompts.response_tokens and longest is not None:
        text += f" ({duration(longest)} if every response reaches the limit)"
    copies = "one copy" if engine.copies == 1 else f"each of {engine.copies} copies"
    batches = "" if engine.continuous else ", each batch going on to the limit"
    text += f", {at_once(shape, shown[0], engine):,} at once on {copies}{batches}, at {percent(BANDWIDTH_UTILISATION)} "
    return Part("sampling", f"{text}of the card's bandwidth or {percent(UTILISATION)} of its peak", a_round, in_all)


def _answering(stages: Sequence[Stage]) -> Part:
    """What is drawn to answer benchmarks' questions, in all."""
    asked = [stage.config for stage in stages if stage.task == answers.TASK.name]
    turns, limit = 0, 0
    for how in asked:
        seeds = 1 if how.sample.temperature == GREEDY else len(how.seeds)
        of_stage = seeds * sum(len(one.turns) for one in how.questions)
        turns, limit = turns + of_stage, limit + of_stage * how.sample.max_new_tokens
    return Part("answers", f"{turns:,} to benchmarks' questions in all, at most {count(limit)} new tokens")


def _asked(config: RunConfig, each: Drawing, prompts: Prompts) -> str:
    heldout = f" and {prompts.heldout:,} held-out ones" if prompts.heldout else ""
    a_round = " a round" if config.rounds > 1 else ""
    new = f"{'about' if prompts.response_tokens else 'at most'} {count(each.total * each.new_tokens)} new ones"
    return (
        f"{prompts.train:,} prompts{heldout} × {each.responses} responses{a_round}, "
        f"{count(each.prompts * each.prompt_tokens)} tokens of prompts, {new} ({each.new_tokens:,} a response, limit "
        f"{each.limit:,})"
    )


def _seconds(shape: Architecture, drawings: Sequence[Drawing], engine: Engine) -> float | None:
    """Of drawings one after the other; None where one of them does not fit."""
    found = [draw_seconds(shape, drawing, engine) for drawing in drawings]
    known = [each for each in found if each is not None]
    return sum(known) if len(known) == len(found) else None


def _scoring(config: RunConfig, stages: Sequence[Stage], of_round: set[str], prompts: Prompts) -> Iterator[Part]:
    """A part for each reward model; functions take no time that could be planned."""
    nodes: dict[str, dict[str, Any]] = {}
    for stage in stages:
        for kept, apart in (
            (stage.config.scorers, stage.settings.scorers),
            (stage.config.heldout, stage.settings.heldout),
        ):
            nodes |= {name: {**node, **apart.get(name, {})} for name, node in kept.items()}
    found = {name: scorer for name, node in nodes.items() if (scorer := _model_scorer(config, node)) is not None}
    card = named_card(config)
    for name, scorer in found.items():
        read = {stage.name: _read(stage, name, scorer, prompts) for stage in stages}
        responses, tokens = (sum(read[stage][i] for stage in read if stage in of_round) for i in range(2))
        line = f"{responses:,} responses" + (" a round" if config.rounds > 1 else "")
        line += f", {'about' if prompts.response_tokens else 'at most'} {count(tokens)} tokens"
        title = "scoring" if len(found) == 1 else f"scoring {name}"
        if scorer.parameters is None:
            yield Part(title, f"{line}; the size of '{name}' is not known: give score.parameters")
            continue
        weights = scorer.parameters * (2 if scorer.precision is Precision.bf16 else 4)
        download = 0 if is_local(scorer.path, DATA_SUFFIXES) else weights
        line += f" through {count(scorer.parameters)} parameters ({size(weights)} of weights), "
        line += f"{number(2 * scorer.parameters * tokens / 1e12)} TFLOP"
        if card is None:
            yield Part(title, line, download=download)
        elif weights > card.memory:
            yield Part(title, f"{line}; the weights do not fit the card's {size(card.memory)}", download=download)
        else:
            copies = min(_copies(config, stage, 1) for stage in stages if stage.name in of_round or not of_round)
            each = 2 * scorer.parameters / (card.rate(scorer.precision) * copies)
            line += f"; about {duration(each * tokens)} on {copies} card{'s' if copies > 1 else ''}"
            line += f" at {percent(UTILISATION)} of the card's peak"
            yield Part(title, line, each * tokens, each * sum(tokens for _, tokens in read.values()), download)


def _drawing(stage: Stage, prompts: Prompts) -> Drawing:
    how, limit = stage.config, stage.config.sample.max_new_tokens
    train = prompts.train if "train" in how.splits else 0
    heldout = (prompts.heldout if prompts.heldout is not None else how.prompts or 0) if "heldout" in how.splits else 0
    asked = train + heldout if how.prompts is None else min(train + heldout, how.prompts)
    return Drawing(asked, how.sample.n, prompts.prompt_tokens, min(prompts.response_tokens or limit, limit), limit)


def _engine(config: RunConfig, card: Card, stage: Stage, drawing: Drawing) -> Engine | None:
    """What draws on the named cards; None for a sampler of the user's own, and for one that others run."""
    if not str(config.sampler.get(TARGET)).startswith(OWN):
        return None
    sampler = build(config.sampler, Sampler, config.allow_targets, "sampler")  # type: ignore[type-abstract]
    if not sampler.loads_policy:
        return None
    how = stage.config.sample
    lengths = [drawing.prompt_tokens] * min(PROMPTS_LOOKED_AT, max(1, drawing.prompts))
    together = max(map(len, sampler.batches(lengths, how))) * how.n
    copies = _copies(config, stage, sampler.cards)
    return Engine(card, sampler.cards, copies, how.precision, sampler.memory_share, together, sampler.continuous)


def _copies(config: RunConfig, stage: Stage, cards: int) -> int:
    """Models that work side by side in a stage, each on so many cards."""
    launcher = config.launcher
    return launcher.nodes * max(1, launcher.processes // cards) if stage.placement is Placement.replicas else 1


def _space(engine: Engine) -> str:
    cards = f"{engine.cards} × " if engine.cards > 1 else "the card's "
    return f"{percent(engine.memory_share)} of {cards}{size(engine.card.memory)}"


def _model_scorer(config: RunConfig, node: dict[str, object]) -> ModelScorer | None:
    """The node's scorer if it is one of this package with a model; functions and the user's own are not loaded."""
    if not str(node.get(TARGET)).startswith(OWN) or not str(node.get("function", OWN)).startswith(OWN):
        return None
    made = build(node, Scorer, config.allow_targets, "score")  # type: ignore[type-abstract]
    return made if isinstance(made, ModelScorer) else None


def _read(stage: Stage, name: str, scorer: ModelScorer, prompts: Prompts) -> tuple[int, int]:
    """Responses that the scorer scores in a stage, and tokens that its model reads for them."""
    drawn = stage.inputs.sets
    each = _drawing(drawn, prompts)
    train = prompts.train if "train" in drawn.config.splits else 0
    sets = train if name in stage.config.scorers else 0
    sets += each.prompts - train if name in stage.config.heldout else 0
    return sets * each.responses, sets * scorer.tokens_read(each.prompt_tokens, each.new_tokens, each.responses)
