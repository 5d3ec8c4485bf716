"""HuggingFaceH4/ultrafeedback_binarized: chosen and rejected conversations with score_chosen and score_rejected."""

from __future__ import annotations

from mpo.data.sources import fields
from mpo.data.sources.fields import Draft, Row, Warn
from mpo.data.sources.pairs import read_pair
from mpo.types import Response

KEYS = frozenset({"chosen", "rejected", "score_chosen", "score_rejected"})


def parse(row: Row, score_field: str | None, warn: Warn) -> Draft:
    """One set of two responses with the data's scores (equal ones occur) and marks."""
    prompt, chosen, rejected = read_pair(row)
    return Draft(
        prompt,
        (
            Response(chosen, fields.score(row.get("score_chosen"), "score_chosen"), accepted=True),
            Response(rejected, fields.score(row.get("score_rejected"), "score_rejected"), accepted=False),
        ),
    )
