"""HuggingFaceH4/ultrafeedback_binarized: chosen and rejected conversations with score_chosen and score_rejected."""

from __future__ import annotations

from mpo.data.sources import fields, pairs
from mpo.data.sources.fields import Draft, Row, Warn

KEYS = frozenset({"chosen", "rejected", "score_chosen", "score_rejected"})
READS = KEYS | pairs.READS


def parse(row: Row, score_field: str | None, warn: Warn) -> Draft:
    """One set of two responses with the data's scores (equal ones occur) and marks."""
    chosen, rejected = (fields.score(row.get(name), name) for name in ("score_chosen", "score_rejected"))
    return pairs.read_pair(row, chosen, rejected, warn)
