"""Decoding of many sequences in step, each drawn from its own seed.

``generate`` computes a prompt once for each of its responses, and every row of a batch until its longest is done. Here
a prompt is computed once, and rows leave the batch, and the key-value cache, soon after they end.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.generation.logits_process import TopPLogitsWarper

from mpo.config.schema import SampleConfig
from mpo.errors import DataError
from mpo.sample.base import Drawn, Request
from mpo.sample.decoder import decoder_of

KEPT = 0.9
"""Share of a batch's rows still going below which the others leave it: each time the whole cache is copied."""
LOOK = 8
"""Steps from one look at which rows have ended to the next, where a look waits for the device: meanwhile rows that have
ended are computed for nothing. On the CPU each step looks."""
BLOCK = 128
"""Steps whose random numbers are made, and whose tokens are kept, together."""


class Generation:
    """Draws responses of one model.

    Args:
        model: on the device that it is to compute on, in evaluation mode.
        decoding: temperature (0: the likeliest token), top-p and limit of new tokens.
        stop_token_ids: ids that end a response.
    """

    def __init__(self, model: PreTrainedModel, decoding: SampleConfig, stop_token_ids: Sequence[int]) -> None:
        self._model, self._new_decoder = model, decoder_of(model)
        self._decoding = decoding
        self._stops_S = torch.tensor(sorted(set(stop_token_ids)), device=model.device)
        self._nucleus = TopPLogitsWarper(decoding.top_p) if decoding.top_p < 1.0 else None

    @torch.inference_mode()
    def __call__(self, requests: Sequence[Request]) -> list[list[Drawn]]:
        """A response for each seed of each request, decoded in step; see :data:`mpo.sample.base.Draw`.

        Raises:
            DataError: the model's logits are not finite.
        """
        device, limit = self._model.device, self._decoding.max_new_tokens
        decoder = self._new_decoder()
        counts = {len(request.seeds) for request in requests}
        shared = decoder.flexible and len(counts) == 1  # each prompt is computed once for all of its responses
        times = max(counts) if shared else 1
        prompts = [one.prompt_ids for one in requests for _ in (one.seeds[:1] if shared else one.seeds)]
        ids_RT, mask_RT = (each.to(device) for each in _padded(prompts))
        positions_RT = (mask_RT.cumsum(-1) - 1).clamp(min=0)
        rows = _Rows([seed for request in requests for seed in request.seeds], self._stops_S)
        look = 1 if device.type == "cpu" else LOOK
        for step in range(1, limit + 1):
            logits_RV = decoder(ids_RT, mask_RT, positions_RT)
            if step == 1 and shared:
                decoder.repeat(times)
                logits_RV, mask_RT, positions_RT = (
                    each.repeat_interleave(times, 0) for each in (logits_RV, mask_RT, positions_RT)
                )
            next_R = self._next(logits_RV.float(), rows)
            if step % look == 0:
                going = rows.count_going()
                if going == 0:
                    break
                if decoder.flexible and going <= KEPT * len(next_R):
                    kept = rows.leave_ended()
                    decoder.select(kept)
                    next_R, mask_RT, positions_RT = (each[kept] for each in (next_R, mask_RT, positions_RT))
            ids_RT = next_R[:, None]
            positions_RT = positions_RT[:, -1:] + 1
            mask_RT = torch.cat([mask_RT, mask_RT.new_ones(len(mask_RT), 1)], dim=-1)
        drawn = rows.drawn()
        return [[next(drawn) for _ in request.seeds] for request in requests]

    def _next(self, logits_RV: Tensor, rows: _Rows) -> Tensor:
        """Draw the next token of every row, and keep it with its log-prob."""
        uniforms_R = rows.uniforms()
        if self._decoding.temperature == 0:
            next_R = logits_RV.argmax(-1)
        else:
            scores_RV = logits_RV / self._decoding.temperature
            if self._nucleus is not None:
                scores_RV = self._nucleus(None, scores_RV)
            next_R = inverse_cdf(scores_RV, uniforms_R)
        # In nats of the policy itself: neither temperature nor top-p is part of it.
        logps_R = logits_RV.gather(-1, next_R[:, None]).squeeze(-1) - logits_RV.logsumexp(-1)
        rows.add(next_R, logps_R)
        return next_R


def inverse_cdf(scores_RV: Tensor, uniforms_R: Tensor) -> Tensor:
    """The token of each row at which the distribution function, in the order of ids, passes the row's uniform number.

    Args:
        scores_RV: logits, float32; -inf for a token that must not be drawn.
        uniforms_R: in [0, 1), float64.

    Returns:
        Ids [R], int64.
    """
    # Sums in float64: a row's draw must not depend on how a device adds up rows of one batch or another.
    cdf_RV = scores_RV.softmax(-1).cumsum(-1, dtype=torch.float64)
    total_R1 = cdf_RV[:, -1:]
    # Below the total also where the product is rounded up to it, so that no token of probability 0 is ever passed.
    passed_R1 = torch.minimum(uniforms_R[:, None] * total_R1, total_R1.nextafter(torch.zeros_like(total_R1)))
    ids_R = torch.searchsorted(cdf_RV, passed_R1, right=True).squeeze(-1)
    return ids_R.clamp(max=scores_RV.shape[-1] - 1)  # logits that are no numbers lead beyond the last


class _Rows:
    """Tokens of N sequences, of which R are still decoded."""

    def __init__(self, seeds: Sequence[int], stops_S: Tensor) -> None:
        device = stops_S.device
        # By counter, so that a sequence's numbers follow from its seed and the step alone.
        self._generators = [np.random.Generator(np.random.Philox(key=seed)) for seed in seeds]
        self._stops_S = stops_S
        self._running_R = torch.arange(len(seeds), device=device)
        self._going_R = torch.ones(len(seeds), dtype=torch.bool, device=device)
        self._step = 0
        self._uniforms_RB = torch.empty(0)
        self._blocks: list[tuple[Tensor, Tensor]] = []

    def uniforms(self) -> Tensor:
        """A uniform number in [0, 1) for each row's next token, float64 [R]."""
        at = self._step % BLOCK
        if at == 0:
            numbers = np.stack([self._generators[r].random(BLOCK) for r in self._running_R.tolist()])
            self._uniforms_RB = torch.from_numpy(numbers).to(self._stops_S.device)
            ids_NB = torch.full((len(self._generators), BLOCK), -1, dtype=torch.long, device=self._stops_S.device)
            self._blocks.append((ids_NB, torch.zeros_like(ids_NB, dtype=torch.float32)))
        return self._uniforms_RB[:, at]

    def add(self, next_R: Tensor, logps_R: Tensor) -> None:
        """Keep each row's next token and its log-prob."""
        ids_NB, logps_NB = self._blocks[-1]
        ids_NB[self._running_R, self._step % BLOCK] = next_R
        logps_NB[self._running_R, self._step % BLOCK] = logps_R
        self._going_R &= ~torch.isin(next_R, self._stops_S)
        self._step += 1

    def count_going(self) -> int:
        """How many rows have not ended; waits for the device."""
        return int(self._going_R.sum())

    def leave_ended(self) -> Tensor:
        """Decode rows no longer that have ended; returns the positions, among the R so far, of those that stay."""
        kept = self._going_R.nonzero().squeeze(-1)
        self._running_R, self._going_R = self._running_R[kept], self._going_R[kept]
        self._uniforms_RB = self._uniforms_RB[kept]
        return kept

    def drawn(self) -> Iterator[Drawn]:
        """Every sequence up to its first stop token: a row that had ended may have stayed for a while."""
        ids_NT = torch.cat([ids_NB for ids_NB, _ in self._blocks], dim=-1)[:, : self._step].cpu().numpy()
        logps_NT = torch.cat([logps_NB for _, logps_NB in self._blocks], dim=-1)[:, : self._step].cpu().numpy()
        ends_NT = np.isin(ids_NT, self._stops_S.cpu().numpy())
        for ids_T, logps_T, ends_T in zip(ids_NT, logps_NT, ends_NT, strict=True):
            finished = bool(ends_T.any())
            length = int(ends_T.argmax()) + 1 if finished else len(ids_T)
            if not np.isfinite(logps_T[:length]).all():
                what = "the policy's logits are not finite numbers, so that nothing can be drawn from it"
                raise DataError(what, "sample", "look at its weights, or try sample.precision=fp32")
            yield Drawn(tuple(ids_T[:length].tolist()), finished, tuple(logps_T[:length].tolist()))


def _padded(prompts: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """Ids and mask [R,T], padded on the left: generation continues at the right edge."""
    longest = max(len(prompt) for prompt in prompts)
    ids_RT = torch.zeros(len(prompts), longest, dtype=torch.long)
    mask_RT = torch.zeros_like(ids_RT)
    for r, prompt in enumerate(prompts):
        ids_RT[r, longest - len(prompt) :] = torch.as_tensor(prompt, dtype=torch.long)
        mask_RT[r, longest - len(prompt) :] = 1
    return ids_RT, mask_RT
