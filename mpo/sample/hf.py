"""Responses drawn with Hugging Face ``generate``: any model that transformers loads, on any device."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

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
    stops = list(stop_token_ids)
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else stops[0]
    # Prompts of like length share a batch, so that little padding is computed.
    order = sorted(range(len(prompts)), key=lambda i: (len(prompts[i]), i))
    together = max(1, config.batch // config.n)
    responses: list[list[Sampled]] = [[] for _ in prompts]
    torch.manual_seed(seed)
    with torch.inference_mode():
        for start in range(0, len(order), together):
            chosen = order[start : start + together]
            longest = max(len(prompts[i]) for i in chosen)
            ids_RT = torch.full((len(chosen), longest), pad, dtype=torch.long)
            mask_RT = torch.zeros_like(ids_RT)
            for row, i in enumerate(chosen):  # padding on the left: generation continues at the right edge
                ids_RT[row, longest - len(prompts[i]) :] = torch.as_tensor(prompts[i], dtype=torch.long)
                mask_RT[row, longest - len(prompts[i]) :] = 1
            out_RT = model.generate(
                ids_RT.to(model.device),
                attention_mask=mask_RT.to(model.device),
                do_sample=True,
                num_return_sequences=config.n,
                temperature=config.temperature,
                top_p=config.top_p,
                top_k=0,
                max_new_tokens=config.max_new_tokens,
                eos_token_id=stops,
                pad_token_id=pad,
            )
            new_RT = out_RT[:, longest:].cpu().tolist()
            for row, tokens in enumerate(new_RT):
                end = next((at for at, token in enumerate(tokens) if token in stops), None)
                text = tokenizer.decode(tokens[:end], skip_special_tokens=True)
                responses[chosen[row // config.n]].append(Sampled(text, end is not None))
            on_progress(min(start + together, len(order)))
    return responses
