"""A judge's answer as a number: an expectation over its verdicts' log-probs, or the verdict that it wrote. No torch."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mpo.errors import UserError

READING = 1
"""Raise it when answers are read otherwise: verdicts that are kept are then asked for again."""


@dataclass(frozen=True)
class Verdict:
    """``value``: of the answer. ``mass``: share of the probability at the verdict's place that is on verdicts; None
    where the verdict was read from the text alone."""

    value: float
    mass: float | None = None


@dataclass(frozen=True)
class NoVerdict:
    """A question that stays without a verdict. ``reason``: of how many others too; ``error``: what to raise of it."""

    reason: str
    error: UserError


@dataclass(frozen=True)
class Verdicts:
    """What a judge may answer.

    Args:
        values: what each verdict is worth, by its text.
        pattern: what may be meant as a verdict, be it one or not.
        of_scale: what may follow a verdict without being one itself, as the ``/9`` of ``7/9``; None where nothing may.
    """

    values: Mapping[str, float]
    pattern: re.Pattern[str]
    of_scale: re.Pattern[str] | None = None

    def read(self, text: str, tokens: Sequence[Mapping[str, Any]] = ()) -> Verdict | None:
        """The verdict that ends the last line of ``text``; None where nothing does, or another one is in that line.

        Args:
            tokens: the answer's tokens as the chat API gives them: ``token``, ``logprob`` and ``top_logprobs``. The
                value is the expectation over the verdicts among the top ones at the verdict's place, renormalised.
                Where the verdict is no token of its own there, it counts as written.

        Raises:
            KeyError, TypeError, ValueError: ``tokens`` are of another form.
        """
        said = text.strip()
        found = self._find(said)
        if found is None:
            return None
        token = _token_at(tokens, said, found.start())
        if token is None or token["token"].strip() != found.group():
            return Verdict(self.values[found.group()])
        probabilities = {
            each["token"]: math.exp(each["logprob"]) for each in (*(token.get("top_logprobs") or ()), token)
        }
        on_verdicts = [(p, self.values[t.strip()]) for t, p in probabilities.items() if t.strip() in self.values]
        mass = sum(p for p, _ in on_verdicts)
        return Verdict(sum(p / mass * value for p, value in on_verdicts), mass) if mass > 0 else None

    def _find(self, said: str) -> re.Match[str] | None:
        searched = said if self.of_scale is None else self.of_scale.sub(lambda of: " " * len(of.group()), said)
        last_line = searched.rfind("\n") + 1
        found = list(self.pattern.finditer(searched, last_line))
        if len(found) != 1 or re.search(r"\w", searched[found[0].end() :]) or found[0].group() not in self.values:
            return None
        return found[0]


def points(lowest: int, highest: int) -> Verdicts:
    """Whole numbers, each worth itself; ``7/9`` and ``7 out of 9`` are 7 on a scale to 9."""
    return Verdicts(
        {str(number): float(number) for number in range(lowest, highest + 1)},
        re.compile(r"(?<!\w)[-+]?[0-9]+(?:[.,][0-9]+)*"),
        re.compile(rf"(?:/|\bout of\b) ?{highest}\b(?![.,][0-9])"),
    )


LETTERS = Verdicts({"A": 1.0, "B": 0.0, "C": 0.5}, re.compile(r"\b[ABC]\b"))
"""The share of a win that goes to the first response: ``A`` is better, ``B`` is, ``C`` for equally good ones."""


def _token_at(tokens: Sequence[Mapping[str, Any]], said: str, place: int) -> Mapping[str, Any] | None:
    """The token that holds character ``place`` of ``said``, which thinking or a token of the end may surround."""
    joined = "".join(each["token"] for each in tokens)
    start = joined.find(said) if joined.lstrip().startswith(said) else joined.rfind(said)
    if start < 0:
        return None
    end = 0
    for each in tokens:
        end += len(each["token"])
        if start + place < end:
            return each
    return None
