"""The CPU back end: each response attends to itself and, with all others of its set at once, to their prompt.

A softmax over two parts of the keys is the two softmaxes merged by their log-sum-exps, so the prompt's keys and values
are read in place, whatever the number of responses, and never copied to each of them. Backward needs no more than the
kernel's own: given the merged output and log-sum-exp it yields each part's share of the gradients.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from mpo.logprobs.attention.groups import Rectangle, group
from mpo.logprobs.batch import TokenBatch

MASKED = -1e30
"""In place of -inf, which would make a row without any key nan; its weight in the merge is 0 as well."""

_forward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
_backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward


class MergedAttend:
    """Flash attention over rectangles of spans, results merged. Exact; deterministic."""

    def __init__(self, batch: TokenBatch) -> None:
        prompts_S, responses_R = batch.prompt_lengths_S.numpy(), batch.response_lengths_R.numpy()
        prompt_starts_S = np.cumsum(prompts_S) - prompts_S
        response_starts_R = int(prompts_S.sum()) + np.cumsum(responses_R) - responses_R
        prompt_of_R = batch.prompt_of_R.numpy()
        after_S = np.bincount(prompt_of_R, weights=responses_R, minlength=len(prompts_S)).astype(np.int64)
        after_starts_S = int(prompts_S.sum()) + np.cumsum(after_S) - after_S  # a set's responses stand side by side
        self._positions_N = batch.position_ids_N

        def groups(members: np.ndarray, queries: np.ndarray, keys: np.ndarray) -> list[np.ndarray]:
            return [members[m] for m in group(queries[members], keys[members])]

        # A prompt with one response shares nothing: the two are one sequence.
        alone_S = np.bincount(prompt_of_R, minlength=len(prompts_S)) == 1
        alone, several = np.flatnonzero(alone_S), np.flatnonzero(~alone_S)
        members_R = np.flatnonzero(~alone_S[prompt_of_R])
        both_S = prompts_S + after_S
        self.own = [
            Rectangle.joined(prompt_starts_S[m], prompts_S[m], after_starts_S[m], after_S[m])
            for m in groups(alone, both_S, both_S)
        ]
        self.own += [Rectangle.of(prompt_starts_S[m], prompts_S[m]) for m in groups(several, prompts_S, prompts_S)]
        self.own += [
            Rectangle.of(response_starts_R[m], responses_R[m]) for m in groups(members_R, responses_R, responses_R)
        ]
        self.cross = [
            (Rectangle.of(after_starts_S[m], after_S[m]), Rectangle.of(prompt_starts_S[m], prompts_S[m]))
            for m in groups(several, after_S, prompts_S)
        ]
        self._masks: dict[int | None, tuple[list[Tensor | None], list[Tensor | None]]] = {}

    def __call__(
        self, query_NHD: Tensor, key_NGD: Tensor, value_NGD: Tensor, scale: float, window: int | None
    ) -> Tensor:
        """See :class:`mpo.logprobs.attention.backends.Attend`."""
        # In bfloat16 the kernel's backward takes more than twice as long as in float32.
        wide = [
            tensor.to(torch.promote_types(tensor.dtype, torch.float32)) for tensor in (query_NHD, key_NGD, value_NGD)
        ]
        out: Tensor = _Merged.apply(*wide, self, scale, window)  # type: ignore[no-untyped-call]
        return out.to(query_NHD.dtype)

    def masks(self, window: int | None, like: Tensor) -> tuple[list[Tensor | None], list[Tensor | None]]:
        """What is added to the logits of each rectangle: of ``own`` (None: causal), of ``cross`` (None: all seen)."""
        if window not in self._masks:
            own = [self._band(rectangle, window, like) for rectangle in self.own]
            cross = [self._across(queries, keys, window, like) for queries, keys in self.cross]
            self._masks[window] = (own, cross)
        return self._masks[window]

    @staticmethod
    def _band(rectangle: Rectangle, window: int | None, like: Tensor) -> Tensor | None:
        steps_T = torch.arange(rectangle.index_GT.shape[1])
        if window is None or window >= len(steps_T):
            return None
        behind_TT = steps_T[:, None] - steps_T
        return _logits((behind_TT >= 0) & (behind_TT < window), like)

    def _across(self, queries: Rectangle, keys: Rectangle, window: int | None, like: Tensor) -> Tensor | None:
        seen_GQP = keys.real_GT[:, None]
        if window is not None:
            behind_GQP = queries.pad(self._positions_N)[:, :, None] - keys.pad(self._positions_N)[:, None]
            if bool((behind_GQP >= window).any()):
                seen_GQP = seen_GQP & (behind_GQP < window)
        return None if bool(seen_GQP.all()) else _logits(seen_GQP, like).unsqueeze(1)


def _logits(seen: Tensor, like: Tensor) -> Tensor:
    return torch.zeros(seen.shape, dtype=like.dtype).masked_fill_(~seen, MASKED)


class _Merged(torch.autograd.Function):
    """``[N,H,D]`` from query ``[N,H,D]``, key and value ``[N,G,D]``."""

    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, layout: MergedAttend, scale: float, window: int | None
    ) -> Tensor:
        masks, cross_masks = layout.masks(window, query)
        times = query.shape[1] // key.shape[1]
        out = query.new_empty(*query.shape[:2], value.shape[-1])
        lse = query.new_empty(query.shape[:2], dtype=torch.promote_types(query.dtype, torch.float32))
        for spans, mask in zip(layout.own, masks, strict=True):
            part, part_lse = _forward(
                _heads(spans.pad(query)),
                _repeated(_heads(spans.pad(key)), times),
                _repeated(_heads(spans.pad(value)), times),
                0.0,
                mask is None,
                attn_mask=mask,
                scale=scale,
            )
            out.index_copy_(0, spans.row_M, spans.real(part.transpose(1, 2)))
            lse.index_copy_(0, spans.row_M, spans.real(part_lse.transpose(1, 2)))
        for (after, before), mask in zip(layout.cross, cross_masks, strict=True):
            part, part_lse = _forward(
                _folded(after.pad(query), times),
                _heads(before.pad(key)),
                _heads(before.pad(value)),
                0.0,
                False,
                attn_mask=_repeated_rows(mask, times),
                scale=scale,
            )
            far = after.real(_unfolded(part, times))
            far_lse = after.real(_unfolded(part_lse.unsqueeze(-1), times)).squeeze(-1)
            near, near_lse = out.index_select(0, after.row_M), lse.index_select(0, after.row_M)
            both_lse = torch.logaddexp(near_lse, far_lse)
            merged = near * (near_lse - both_lse).exp().unsqueeze(-1) + far * (far_lse - both_lse).exp().unsqueeze(-1)
            out.index_copy_(0, after.row_M, merged.to(out.dtype))
            lse.index_copy_(0, after.row_M, both_lse)
        ctx.save_for_backward(query, key, value, out, lse)
        ctx.layout, ctx.scale, ctx.window = layout, scale, window
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, out, lse = ctx.saved_tensors
        (grad_out,) = grads
        layout: MergedAttend = ctx.layout
        masks, cross_masks = layout.masks(ctx.window, query)
        times = query.shape[1] // key.shape[1]
        grad_query, grad_key, grad_value = torch.empty_like(query), torch.empty_like(key), torch.empty_like(value)
        for spans, mask in zip(layout.own, masks, strict=True):
            parts = _backward(
                _heads(_silenced(spans, grad_out)),
                _heads(spans.pad(query)),
                _repeated(_heads(spans.pad(key)), times),
                _repeated(_heads(spans.pad(value)), times),
                _heads(spans.pad(out)),
                _lse(spans, lse).transpose(1, 2),
                0.0,
                mask is None,
                attn_mask=mask,
                scale=ctx.scale,
            )
            for whole, part in zip((grad_query, grad_key, grad_value), parts, strict=True):
                whole.index_copy_(0, spans.row_M, spans.real(_summed(part, whole.shape[1]).transpose(1, 2)))
        for (after, before), mask in zip(layout.cross, cross_masks, strict=True):
            of_query, of_key, of_value = _backward(
                _folded(_silenced(after, grad_out), times),
                _folded(after.pad(query), times),
                _heads(before.pad(key)),
                _heads(before.pad(value)),
                _folded(after.pad(out), times),
                _folded(_lse(after, lse).unsqueeze(-1), times).squeeze(-1),
                0.0,
                False,
                attn_mask=_repeated_rows(mask, times),
                scale=ctx.scale,
            )
            grad_query.index_add_(0, after.row_M, after.real(_unfolded(of_query, times)))
            grad_key.index_add_(0, before.row_M, before.real(of_key.transpose(1, 2)))
            grad_value.index_add_(0, before.row_M, before.real(of_value.transpose(1, 2)))
        return grad_query, grad_key, grad_value, None, None, None


def _heads(padded_GTHD: Tensor) -> Tensor:
    return padded_GTHD.transpose(1, 2)


def _silenced(spans: Rectangle, grad_out: Tensor) -> Tensor:
    """Padded gradient of the output, 0 at padding, so that padding says nothing of keys and values."""
    padded = spans.pad(grad_out)
    return padded if spans.full else padded * spans.real_GT[..., None, None]


def _lse(spans: Rectangle, lse_NH: Tensor) -> Tensor:
    """Padded log-sum-exp, at padding so large that its probabilities are 0 instead of overflowing."""
    padded_GTH = spans.pad(lse_NH)
    return padded_GTH if spans.full else padded_GTH.masked_fill(~spans.real_GT[..., None], -MASKED)


def _repeated(key_RGTD: Tensor, times: int) -> Tensor:
    """Keys or values for each query head of their group."""
    return key_RGTD if times == 1 else key_RGTD.repeat_interleave(times, 1)


def _summed(grad_RHTD: Tensor, heads: int) -> Tensor:
    """The gradient of what :func:`_repeated` repeated."""
    times = grad_RHTD.shape[1] // heads
    return grad_RHTD if times == 1 else grad_RHTD.unflatten(1, (heads, times)).sum(2)


def _folded(padded_GTHD: Tensor, times: int) -> Tensor:
    """``[S,T,H,D]`` to ``[S,G,times·T,D]``: query heads of a group are more queries to the same keys."""
    if times == 1:
        return padded_GTHD.transpose(1, 2)
    return padded_GTHD.unflatten(2, (-1, times)).permute(0, 2, 3, 1, 4).flatten(2, 3)


def _unfolded(folded: Tensor, times: int) -> Tensor:
    """The inverse of :func:`_folded`."""
    if times == 1:
        return folded.transpose(1, 2)
    return folded.unflatten(2, (times, -1)).permute(0, 3, 1, 2, 4).flatten(2, 3)


def _repeated_rows(mask_S1QP: Tensor | None, times: int) -> Tensor | None:
    """A mask for queries that :func:`_folded` has folded."""
    if mask_S1QP is None or times == 1 or mask_S1QP.shape[2] == 1:
        return mask_S1QP
    return mask_S1QP.repeat(1, 1, times, 1)
