"""Embed the responses of sets, and keep how alike those of each set are."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from mpo.cache.stage import Nothing
from mpo.data.batches import batched
from mpo.data.similarities import StoredSimilarities
from mpo.data.store import count_stored_sets, read_stored_sets
from mpo.score.encoder import load_encoder
from mpo.stages.context import StageContext
from mpo.stages.models import model_source
from mpo.stages.nodes import embed
from mpo.stages.summary import Summary
from mpo.types import Response

SETS_AT_ONCE = 64
"""Sets whose responses are ordered by length together."""
CUT = "response longer than the encoder reads; its end is not in its embedding"


def run(context: StageContext[Nothing, Nothing, embed.Inputs[Path]]) -> None:
    """Write ``train/`` and ``heldout/`` similarities. What is embedded is a response's answer, with the calls that it
    makes, neither its thoughts nor its prompt, which a set's responses share.

    Raises:
        UserError: the encoder cannot be loaded.
        DataError: an embedding is not finite.
    """
    encoder = load_encoder(*model_source(context.inputs.encoder))
    progress = context.progress()
    warnings: dict[str, dict[str, int]] = {}
    facts: dict[str, dict[str, int]] = {}
    for path in sorted(context.inputs.sets.glob("*.parquet")):
        ids: list[str] = []
        matrices: list[np.ndarray] = []
        total, cut, responses = count_stored_sets(path), 0, 0
        for sets in batched(read_stored_sets(path), SETS_AT_ONCE):
            texts = list(dict.fromkeys(_text(each) for one in sets for each in one.responses))
            place = {text: number for number, text in enumerate(texts)}
            vectors_ND, were_cut = encoder.embed(texts)
            for one in sets:
                own = [place[_text(each)] for each in one.responses]
                vectors_KD = vectors_ND[own].astype(np.float64)
                ids.append(one.id)
                matrices.append(vectors_KD @ vectors_KD.T)
                cut += sum(number in were_cut for number in own)
                responses += len(own)
            progress.update(len(ids), total, f"sets of {path.stem}")
        StoredSimilarities.save(context.output / path.stem, ids, matrices)
        facts[path.stem] = {"sets": len(ids), "responses": responses}
        if cut:
            warnings[path.stem] = {CUT: cut}
            context.warn(f"{path.stem}: {CUT}: {cut} of {responses} responses")
    progress.close()
    Summary(warnings=warnings, facts=facts).write(context.output)


def _text(one: Response) -> str:
    return one.text if one.tool_calls is None else f"{one.text}\n{one.tool_calls}"
