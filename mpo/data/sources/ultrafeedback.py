"""openbmb/UltraFeedback: an instruction, up to four completions, each with two scores.

Rules (data set card and its issue 8):

- ``overall_score`` (1-10, the default): in releases before 2023-12-29 a 10 often meant 1. A 10 is read as 1 where
  ``fine-grained_score`` <= 2 and kept where it is > 4, the maintainers' own rule; between (they asked the annotator
  again) or without a fine-grained score the truth is unknown, and the response counts as unscored.
- ``fine-grained_score`` (1-5): the mean of the aspects' ratings; where the field is absent or NaN it is computed from
  the ratings that are numbers ("N/A" is left out); without any the response counts as unscored.

Unscored responses are dropped from a set that has scores, each with a warning. The hidden ``custom_system_prompt``
under which a completion was written isn't part of the prompt, as in the recipes that use this data.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from mpo.data.problems import Reason, RowError
from mpo.data.sources import fields
from mpo.data.sources.fields import Draft, Row, Warn
from mpo.data.sources.messages import prompt, warn_unused
from mpo.types import Response

KEYS = frozenset({"instruction", "completions"})
READS = KEYS
COMPLETION = frozenset(
    {"annotations", "critique", "custom_system_prompt", "fine-grained_score", "model", "overall_score", "principle",
     "response"}
)  # fmt: skip
"""Fields of a completion in the published data."""
SCORE_FIELDS = ("overall_score", "fine-grained_score")


def parse(row: Row, score_field: str | None, warn: Warn) -> Draft:
    """One set of a row; ``score_field`` is one of ``SCORE_FIELDS``."""
    turns = prompt(fields.field(row, "instruction"), "instruction", warn)
    completions = fields.items(fields.field(row, "completions"), "completions")
    responses = []
    for index, completion in enumerate(completions):
        name = f"completions[{index}]"
        if not isinstance(completion, Mapping):
            raise RowError(Reason.RESPONSE_NOT_TEXT, f"{name} is {fields.kind(completion)}, not an object")
        warn_unused(completion, COMPLETION, name, warn)
        model = completion.get("model")
        body = fields.text(completion.get("response"), f"{name}.response", Reason.RESPONSE_NOT_TEXT)
        if score_field == "fine-grained_score":
            score = _fine_grained(completion, name)
        else:
            score = _overall(completion, name, warn)
        responses.append(Response(body, score, None if model is None else str(model)))
    return Draft(turns, tuple(responses))


def _overall(completion: Row, name: str, warn: Warn) -> float | None:
    overall = fields.score(completion.get("overall_score"), f"{name}.overall_score")
    if overall != 10:
        return overall
    fine = _fine_grained(completion, name)
    if fine is not None and fine > 4:
        return overall
    if fine is not None and fine <= 2:
        warn(Reason.OVERALL_TEN_CORRECTED, f"{name}.overall_score 10 with fine-grained score {fine:g} is read as 1")
        return 1.0
    shown = "none" if fine is None else f"{fine:g}"
    warn(Reason.OVERALL_TEN_UNCLEAR, f"{name}.overall_score 10 with fine-grained score {shown} may mean 1: unscored")
    return None


def _fine_grained(completion: Row, name: str) -> float | None:
    given = completion.get("fine-grained_score")
    if given is not None and not (isinstance(given, float) and math.isnan(given)):
        return fields.score(given, f"{name}.fine-grained_score")
    ratings = []
    annotations = completion.get("annotations")
    for aspect in annotations.values() if isinstance(annotations, Mapping) else ():
        rating = aspect.get("Rating") if isinstance(aspect, Mapping) else None
        if rating is not None and str(rating).strip().isdigit():
            ratings.append(int(rating))
    return sum(ratings) / len(ratings) if ratings else None
