"""Responses drawn with a transformers model, on any device, without a serving engine.

``generate`` computes a prompt once for each of its responses, and every row of a batch until its longest is done. Here
a prompt is computed once, and rows leave the batch, and the key-value cache, soon after they end.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.generation.logits_process import TopPLogitsWarper

from mpo.config.schema import SampleConfig
from mpo.data.chat import special_tokens
from mpo.sample.decoder import Decoder, decoder_of

KEPT = 0.9
"""Share of a batch's rows still going below which the others leave it: each time the whole cache is copied."""


@dataclass(frozen=True, slots=True)
class Sampled:
    """One response as text.

    Attributes:
        finished: whether it ended with a stop token rather than at the limit.
        left_out: a special token inside it, which its text is without; empty where there is none.
    """

    text: str
    finished: bool
    left_out: str = ""


def sample_responses(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Sequence[int]],
    config: SampleConfig,
    stop_token_ids: Sequence[int],
    seed: int,
    drawn: Mapping[int, list[list[Sampled]]],
    on_batch: Callable[[int, list[list[Sampled]], int], None],
) -> list[list[Sampled]]:
    """Draw ``config.n`` responses for each prompt.

    Args:
        prompts: token ids, each rendered with the generation prompt.
        stop_token_ids: ids that end a response, one at least.
        seed: fixes the draws for one batch size, model and device.
        drawn: batches that an earlier attempt has drawn, by number; they are not drawn again.
        on_batch: called after each batch with its number, its prompts' responses and the number of prompts done.

    Returns:
        For each prompt, in order, its responses without special tokens.
    """
    # Prompts of like length share a batch, so that little padding is computed; the longest first, so that memory that
    # does not suffice is found out at once.
    batches = _batches([len(prompt) for prompt in prompts], config)
    stops = torch.tensor(sorted(set(stop_token_ids)), device=model.device)
    ends = set(stop_token_ids)
    responses: list[list[Sampled]] = [[] for _ in prompts]
    done = 0
    decoder = decoder_of(model) if len(drawn) < len(batches) else None
    with torch.inference_mode():
        for number, chosen in enumerate(batches):
            done += len(chosen)
            if number in drawn or decoder is None:
                made = drawn[number]
            else:
                own = int(np.random.SeedSequence([seed, number]).generate_state(1)[0])
                generator = torch.Generator(device=model.device).manual_seed(own)
                made = [[] for _ in chosen]
                texts = _continue(model, decoder, [prompts[i] for i in chosen], config, stops, generator)
                for row, tokens in enumerate(texts):
                    made[row // config.n].append(_as_text(tokenizer, tokens, ends))
                on_batch(number, made, done)
            for i, of_prompt in zip(chosen, made, strict=True):
                responses[i] = of_prompt
    return responses


def _batches(lengths: Sequence[int], config: SampleConfig) -> list[list[int]]:
    """Prompts by position, the longest first, as many at once as ``batch`` and ``batch_tokens`` allow, one at least."""
    order = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
    batches: list[list[int]] = []
    start = 0
    while start < len(order):
        of_row = lengths[order[start]] + config.max_new_tokens
        together = max(1, min(config.batch, config.batch_tokens // of_row) // config.n)
        batches.append(order[start : start + together])
        start += together
    return batches


def _continue(
    model: PreTrainedModel,
    decoder: Callable[[], Decoder],
    prompts: Sequence[Sequence[int]],
    config: SampleConfig,
    stops: Tensor,
    generator: torch.Generator,
) -> list[list[int]]:
    """New tokens of ``n`` rows per prompt, the stop token included where it came before the limit."""
    step_by_step = decoder()
    flexible = step_by_step.flexible
    if not flexible:
        prompts = [prompt for prompt in prompts for _ in range(config.n)]
    rows = len(prompts) * (config.n if flexible else 1)
    device, longest = model.device, max(len(prompt) for prompt in prompts)
    ids_RT = torch.zeros(len(prompts), longest, dtype=torch.long)
    mask_RT = torch.zeros_like(ids_RT)
    for r, prompt in enumerate(prompts):  # padding on the left: generation continues at the right edge
        ids_RT[r, longest - len(prompt) :] = torch.as_tensor(prompt, dtype=torch.long)
        mask_RT[r, longest - len(prompt) :] = 1
    ids_RT, mask_RT = ids_RT.to(device), mask_RT.to(device)
    positions_RT = (mask_RT.cumsum(-1) - 1).clamp(min=0)
    nucleus = TopPLogitsWarper(config.top_p) if config.top_p < 1.0 else None
    running = list(range(rows))
    going_R = torch.ones(len(running), dtype=torch.bool, device=device)
    new: list[list[int]] = [[] for _ in running]
    for step in range(config.max_new_tokens):
        logits_RV = step_by_step(ids_RT, mask_RT, positions_RT)
        if step == 0 and flexible:
            step_by_step.repeat(config.n)
            logits_RV, mask_RT, positions_RT = (
                each.repeat_interleave(config.n, 0) for each in (logits_RV, mask_RT, positions_RT)
            )
        logits_RV = logits_RV.float() / config.temperature
        if nucleus is not None:
            logits_RV = nucleus(ids_RT, logits_RV)
        next_R = torch.multinomial(logits_RV.softmax(-1), 1, generator=generator).squeeze(-1)
        for r, token in zip(running, next_R.tolist(), strict=True):
            new[r].append(token)
        going_R &= ~torch.isin(next_R, stops)
        going = int(going_R.sum())
        if going == 0:
            break
        if flexible and going <= KEPT * len(running):
            kept = going_R.nonzero().squeeze(-1)
            running = [running[r] for r in kept.tolist()]
            step_by_step.select(kept)
            next_R, going_R, mask_RT, positions_RT = (each[kept] for each in (next_R, going_R, mask_RT, positions_RT))
        ids_RT = next_R[:, None]
        positions_RT = positions_RT[:, -1:] + 1
        mask_RT = torch.cat([mask_RT, mask_RT.new_ones(len(mask_RT), 1)], dim=-1)
    ends = set(stops.tolist())
    return [_cut(tokens, ends) for tokens in new]


def _as_text(tokenizer: PreTrainedTokenizerBase, tokens: list[int], ends: set[int]) -> Sampled:
    finished = bool(tokens) and tokens[-1] in ends
    inner = tokens[:-1] if finished else tokens
    found = set(inner)
    left_out = next((name for name, index in special_tokens(tokenizer).items() if index in found), "")
    return Sampled(tokenizer.decode(inner, skip_special_tokens=True), finished, left_out)


def _cut(tokens: list[int], ends: set[int]) -> list[int]:
    """Up to the first stop token; a row that had ended may have stayed in the batch for a while."""
    return tokens[: next((i + 1 for i, token in enumerate(tokens) if token in ends), None)]
