"""princeton-nlp/llama3-ultrafeedback-armorm and its siblings: five sampled responses and their reward-model scores."""

from __future__ import annotations

from mpo.data.problems import Reason
from mpo.data.sources import fields
from mpo.data.sources.fields import Draft, Row, Warn
from mpo.data.sources.messages import prompt
from mpo.types import Response

KEYS = frozenset({"prompt", "all_generated_responses"})
READS = frozenset({*KEYS, "all_rm_scores"})


def parse(row: Row, score_field: str | None, warn: Warn) -> Draft:
    """One set of a row; ``score_field`` names the list of scores (default ``all_rm_scores``)."""
    turns = prompt(fields.field(row, "prompt"), "prompt", warn)
    entries = fields.items(fields.field(row, "all_generated_responses"), "all_generated_responses")
    scores = fields.parallel_scores(row, score_field or "all_rm_scores", len(entries))
    return Draft(
        turns,
        tuple(
            Response(fields.text(entry, f"all_generated_responses[{i}]", Reason.RESPONSE_NOT_TEXT), score)
            for i, (entry, score) in enumerate(zip(entries, scores, strict=True))
        ),
    )
