"""Next tokens one by one have the logits of whole forward passes, whatever a family keeps of the tokens before."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from mpo.sample.decoder import Decoder, decoder_of
from tests.families import saved

PROMPTS = [[11, 12, 13, 14, 15, 16], [21, 22]]
NEW = [[31, 41], [32, 42], [33, 43]]


def rows_of(decoder: Decoder) -> list[torch.Tensor]:
    """Logits after the prompts and after each pair of new tokens; after the first, rows are repeated and taken out."""
    ids_RT = torch.tensor([PROMPTS[0], [0] * 4 + PROMPTS[1]])
    mask_RT = torch.tensor([[1] * 6, [0] * 4 + [1] * 2])
    found = []
    for step in range(len(NEW) + 1):
        positions_RT = (mask_RT.cumsum(-1) - 1).clamp(min=0)[:, -ids_RT.shape[1] :]
        found.append(decoder(ids_RT, mask_RT, positions_RT)[:2])
        if step == 0 and decoder.flexible:
            decoder.repeat(2)
            decoder.select(torch.tensor([1, 2]))  # of each prompt one
        if step < len(NEW):
            ids_RT = torch.tensor(NEW[step])[:, None]
            mask_RT = torch.cat([mask_RT, mask_RT.new_ones(2, 1)], dim=-1)
    return found


@pytest.mark.parametrize("family", ["gpt_oss", "qwen3_5_text", "falcon_h1", "mamba", "gemma3"])
@pytest.mark.filterwarnings("ignore:the cache of model type")
def test_steps_have_the_logits_of_whole_passes(family: str, tmp_path: Path) -> None:
    lm = saved(family, tmp_path)
    with torch.no_grad():
        decoder = decoder_of(lm)()
        found = rows_of(decoder)
        for row, prompt in enumerate(PROMPTS):
            for step, logits_RV in enumerate(found):
                ids = torch.tensor([[*prompt, *(new[row] for new in NEW[:step])]])
                expected_V = lm(input_ids=ids, use_cache=False).logits[0, -1]
                torch.testing.assert_close(logits_RV[row], expected_V, rtol=1e-4, atol=1e-4)
