"""Responses that are empty, cut off or the same as another one: kept, dropped or drawn again, as the run chooses."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from mpo.config.schema import SampleConfig, Unwanted
from mpo.sample.base import Draw, Drawn, Request
from mpo.types import Response

EMPTY, CUT, EQUAL = "empty", "cut off", "equal to another of its set"
DROPPED, REDRAWN = "dropped", "drawn again"
Said = tuple[str | None, str]
"""Thought and answer."""


@dataclass(frozen=True)
class Wanted:
    """One prompt whose responses are wanted.

    Attributes:
        prompt_ids: its tokens.
        seed: the seed of each response by its number, for as many numbers as it takes.
    """

    prompt_ids: Sequence[int]
    seed: Callable[[int], int]


def as_drawn(how: SampleConfig) -> SampleConfig:
    """The same with every response kept, for what is measured and must not be chosen."""
    return replace(how, empty=Unwanted.keep, cut=Unwanted.keep, duplicates=Unwanted.keep)


def draw_wanted(
    draw: Draw,
    wanted: Sequence[Wanted],
    how: SampleConfig,
    response: Callable[[Drawn, Sequence[int]], Response],
) -> tuple[list[list[Drawn]], Counter[str]]:
    """``how.n`` responses to each prompt, fewer where some were dropped, or unwanted after ``how.redraws`` new draws;
    and how many were dropped or drawn again, by reason.

    What one prompt gets depends on no other prompt.

    Args:
        response: what was drawn for a prompt of these ids, as text. One without an answer is empty, whatever its
            thought; two are equal if their thoughts are, too.
    """
    choices = {EMPTY: how.empty, CUT: how.cut, EQUAL: how.duplicates}
    if set(choices.values()) == {Unwanted.keep}:  # no text need be looked at
        return draw(
            [Request(one.prompt_ids, [one.seed(number) for number in range(how.n)]) for one in wanted]
        ), Counter()
    kept: list[list[Drawn]] = [[] for _ in wanted]
    texts: list[set[Said]] = [set() for _ in wanted]
    numbers = [0] * len(wanted)
    missing = dict.fromkeys(range(len(wanted)), how.n)
    counts: Counter[str] = Counter()
    for attempt in range(how.redraws + 1):
        requests = [
            Request(wanted[at].prompt_ids, [wanted[at].seed(numbers[at] + further) for further in range(count)])
            for at, count in missing.items()
        ]
        again: dict[int, int] = {}
        for at, found in zip(missing, draw(requests), strict=True):
            numbers[at] += len(found)
            for one in found:
                read = response(one, wanted[at].prompt_ids)
                said = (read.reasoning, read.text.strip())
                choice, why = _choice(one, said, texts[at], choices)
                if choice is Unwanted.keep:
                    kept[at].append(one)
                    texts[at].add(said)
                elif choice is Unwanted.redraw and attempt < how.redraws:
                    again[at] = again.get(at, 0) + 1
                    counts[f"{why}, {REDRAWN}"] += 1
                else:
                    counts[f"{why}, {DROPPED}"] += 1
        missing = again
        if not missing:
            break
    return kept, counts


def _choice(one: Drawn, said: Said, texts: set[Said], choices: Mapping[str, Unwanted]) -> tuple[Unwanted, str]:
    """What becomes of a response, and why: of several reasons the first that does not keep it."""
    reasons = {EMPTY: not said[1], CUT: not one.finished, EQUAL: said in texts}
    for why, applies in reasons.items():
        if applies and choices[why] is not Unwanted.keep:
            return choices[why], why
    return Unwanted.keep, ""
