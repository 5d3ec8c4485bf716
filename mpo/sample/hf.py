"""Responses drawn with a transformers model, on any device, without a serving engine.

``generate`` computes every row of a batch until its longest is done. Here rows leave the batch, and the key-value
cache, as they end: for responses of very different lengths that is most of the work.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel, PreTrainedTokenizerBase
from transformers.generation.logits_process import TopPLogitsWarper

from mpo.config.schema import SampleConfig


@dataclass(frozen=True, slots=True)
class Sampled:
    """One response as text; ``finished`` where it ended with a stop token rather than at the limit."""

    text: str
    finished: bool


def sample_responses(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Sequence[int]],
    config: SampleConfig,
    stop_token_ids: Sequence[int],
    seed: int,
    on_progress: Callable[[int], None],
) -> list[list[Sampled]]:
    """Draw ``config.n`` responses for each prompt.

    Args:
        prompts: token ids, each rendered with the generation prompt.
        stop_token_ids: ids that end a response, one at least.
        seed: fixes the draws for one batch size, model and device.
        on_progress: called with the number of prompts done.

    Returns:
        For each prompt, in order, its responses without special tokens.
    """
    # Prompts of like length share a batch, so that little padding is computed.
    order = sorted(range(len(prompts)), key=lambda i: (len(prompts[i]), i))
    together = max(1, config.batch // config.n)
    generator = torch.Generator(device=model.device).manual_seed(seed)
    stops = torch.tensor(sorted(set(stop_token_ids)), device=model.device)
    ends = set(stop_token_ids)
    responses: list[list[Sampled]] = [[] for _ in prompts]
    with torch.inference_mode():
        for start in range(0, len(order), together):
            chosen = order[start : start + together]
            rows = [prompts[i] for i in chosen for _ in range(config.n)]
            for row, tokens in enumerate(_continue(model, rows, config, stops, generator)):
                finished = bool(tokens) and tokens[-1] in ends
                text = tokenizer.decode(tokens[:-1] if finished else tokens, skip_special_tokens=True)
                responses[chosen[row // config.n]].append(Sampled(text, finished))
            on_progress(min(start + together, len(order)))
    return responses


def _continue(
    model: PreTrainedModel,
    rows: Sequence[Sequence[int]],
    config: SampleConfig,
    stops: Tensor,
    generator: torch.Generator,
) -> list[list[int]]:
    """New tokens of each row, its stop token included where it came before the limit."""
    device, longest = model.device, max(len(row) for row in rows)
    ids_RT = torch.zeros(len(rows), longest, dtype=torch.long)
    mask_RT = torch.zeros_like(ids_RT)
    for r, row in enumerate(rows):  # padding on the left: generation continues at the right edge
        ids_RT[r, longest - len(row) :] = torch.as_tensor(row, dtype=torch.long)
        mask_RT[r, longest - len(row) :] = 1
    ids_RT, mask_RT = ids_RT.to(device), mask_RT.to(device)
    positions_RT = (mask_RT.cumsum(-1) - 1).clamp(min=0)
    nucleus = TopPLogitsWarper(config.top_p) if config.top_p < 1.0 else None
    cache = DynamicCache(config=model.config)
    running = list(range(len(rows)))
    new: list[list[int]] = [[] for _ in rows]
    for _ in range(config.max_new_tokens):
        logits_RV = model(
            input_ids=ids_RT,
            attention_mask=mask_RT,
            position_ids=positions_RT,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        ).logits[:, -1]
        logits_RV = logits_RV.float() / config.temperature
        if nucleus is not None:
            logits_RV = nucleus(ids_RT, logits_RV)
        next_R = torch.multinomial(logits_RV.softmax(-1), 1, generator=generator).squeeze(-1)
        for r, token in zip(running, next_R.tolist(), strict=True):
            new[r].append(token)
        going_R = ~torch.isin(next_R, stops)
        if not bool(going_R.all()):
            kept = going_R.nonzero().squeeze(-1)
            running = [running[r] for r in kept.tolist()]
            if not running:
                break
            cache.batch_select_indices(kept)
            next_R, mask_RT, positions_RT = next_R[kept], mask_RT[kept], positions_RT[kept]
        ids_RT = next_R[:, None]
        positions_RT = positions_RT[:, -1:] + 1
        mask_RT = torch.cat([mask_RT, mask_RT.new_ones(len(mask_RT), 1)], dim=-1)
    return new
