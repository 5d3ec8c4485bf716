"""The language-model head over response positions only, in chunks: full logits are never materialised."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from mpo.errors import ConfigError
from mpo.layout.shape_buckets import ROWS
from mpo.policy.cpu.vocabulary import SumOf
from mpo.policy.products import operand, wide_product

LOGITS_AT_ONCE = {"cpu": 1 << 20, "cuda": 1 << 27}
"""Largest number of logits (positions x entries of the vocabulary) that exist at a time, by type of device: what a
CPU's cache holds (4 MiB in float32), 512 MiB on CUDA."""
SHARE = 1e-12
"""Least share of the probability that a block of the vocabulary counts with: what float32 rounds away."""
VOCABULARY_AT_ONCE = {"cpu": 1 << 11, "cuda": 1 << 15}
"""Most entries of the vocabulary in a block of logits. A block is as square as products need to be fast: gradients are
added up in float32 once a block, those of hidden states over its entries, those of the weights over its positions."""


class HeadOutput(NamedTuple):
    """Of N positions, float32; of the second and third there is no gradient.

    Attributes:
        logps_N: of the targets.
        normalisers_WN: log-sum-exp of each of W blocks of the vocabulary, which spares a second forward its product.
        square_sums_N: log Σ_v π(v)², the log-probability that two draws at the position agree; None unless wanted.
    """

    logps_N: Tensor
    normalisers_WN: Tensor
    square_sums_N: Tensor | None = None


class ChunkedHead(nn.Module):
    """Hidden states and target ids to float32 log-probs, ``([N,D], [N]) -> [N]``, and more about the positions.

    Shares the head's own parameters, so that ZeRO-3 gathers them once for this module's forward and once for its
    backward. Calling the model's head once a chunk would gather once a chunk, and processes with different numbers of
    chunks would wait for each other for ever.

    Attributes:
        sum_of: where the gradient of the weights is added, in place of being autograd's; None: it is.
        wants_square_sums: whether a loss reads :attr:`HeadOutput.square_sums_N`.
    """

    def __init__(self, head: nn.Module, scale: float, softcap: float | None) -> None:
        super().__init__()
        if type(head) is not nn.Linear:
            raise ConfigError(
                f"the head is a {type(head).__name__}, not a linear layer", "model.path", "use another model family"
            )
        self.weight = head.weight
        self.bias = head.bias
        self.scale, self.softcap = scale, softcap
        self.sum_of: SumOf | None = None
        self.wants_square_sums = False

    def forward(self, hidden_ND: Tensor, targets_N: Tensor, known_WN: Tensor | None = None) -> HeadOutput:
        """Log-prob of each target under the softmax of its position.

        Args:
            known_WN: the normalisers of an earlier forward of the same. The values are of no interest any more, only
                the gradient of the log-probs is; they may be 0.
        """
        logps_N, normalisers_WN, square_sums_N = _TargetLogps.apply(  # type: ignore[no-untyped-call]
            hidden_ND, self.weight, self.bias, targets_N, self.scale, self.softcap, known_WN, self.sum_of,
            self.wants_square_sums,
        )  # fmt: skip
        return HeadOutput(logps_N, normalisers_WN, square_sums_N if self.wants_square_sums else None)


class _TargetLogps(torch.autograd.Function):
    """Log-softmax at the targets, a block of logits at a time; backward computes each block's logits anew.

    With q = softmax − target's one-hot, row by row, and g the gradient of the log-probs, hidden states get −g·(qW) and
    the weights −qᵀ(g·hidden): the factor g never needs a pass over a row of the vocabulary. Nor does the block's share
    s of the probability, by which its own softmax is too large: g·s takes the place of g, and q has one-hot / s.
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden_ND: Tensor,
        weight_VD: Tensor,
        bias_V: Tensor | None,
        targets_N: Tensor,
        scale: float,
        softcap: float | None,
        known_WN: Tensor | None,
        sum_of: SumOf | None,
        wants_square_sums: bool,
    ) -> tuple[Tensor, Tensor, Tensor]:
        ctx.scale, ctx.softcap, ctx.sum_of = scale, softcap, sum_of
        logit_N1 = torch.zeros(len(targets_N), 1, dtype=torch.float32, device=hidden_ND.device)
        if known_WN is not None:
            ctx.save_for_backward(hidden_ND, weight_VD, bias_V, targets_N, known_WN)
            logps_N, square_sums_N = logit_N1.squeeze(-1), torch.zeros_like(logit_N1).squeeze(-1)
            ctx.mark_non_differentiable(square_sums_N)
            return logps_N, logit_N1.new_empty(0), square_sums_N
        entries, positions, memory = _blocks(hidden_ND, weight_VD)
        operand_ND = operand(hidden_ND)
        lse_WN = torch.empty(len(entries), len(targets_N), dtype=torch.float32, device=hidden_ND.device)
        squares_WN = torch.empty_like(lse_WN) if wants_square_sums else None
        for block, columns in enumerate(entries):
            bias_v = None if bias_V is None else bias_V[columns]
            column_N1, here_N1 = _targets_within(targets_N, columns)
            operand_vD = memory.operand(weight_VD[columns])
            for rows in positions:
                logits_nv = memory.logits(operand_ND[rows], operand_vD, bias_v, scale, softcap)
                logit_N1[rows] += logits_nv.gather(-1, column_N1[rows]).where(here_N1[rows], 0.0)
                top_n = logits_nv.amax(-1)
                # The largest probability is exp(largest logit - lse); softmax is one pass where logsumexp is four.
                share_nv = memory.softmax(logits_nv)
                lse_WN[block, rows] = top_n.sub_(share_nv.amax(-1).log_())
                if squares_WN is not None:
                    squares_WN[block, rows] = share_nv.square_().sum(-1)
        ctx.save_for_backward(hidden_ND, weight_VD, bias_V, targets_N, lse_WN)
        lse_N = lse_WN.logsumexp(0)
        square_sums_N = lse_N.new_empty(0)
        if squares_WN is not None:  # of each block's own softmax; its share of the probability is e^(its lse - lse)
            square_sums_N = (squares_WN.log_() + 2 * (lse_WN - lse_N)).logsumexp(0)
        ctx.mark_non_differentiable(lse_WN, square_sums_N)
        return logit_N1.squeeze(-1) - lse_N, lse_WN, square_sums_N

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        hidden_ND, weight_VD, bias_V, targets_N, lse_WN = ctx.saved_tensors
        # Of a block's entries in the whole vocabulary's probability; some, for the one-hot is divided by it.
        share_WN = (lse_WN - lse_WN.logsumexp(0)).exp_().clamp_(min=SHARE)
        grad_N1 = grads[0].unsqueeze(-1) * -ctx.scale
        wants_hidden, wants_weight, wants_bias = ctx.needs_input_grad[:3]
        grad_hidden_ND = torch.zeros_like(hidden_ND, dtype=torch.float32) if wants_hidden else None
        sum_VD = ctx.sum_of() if wants_weight and ctx.sum_of is not None else None
        grad_weight_VD = torch.empty_like(weight_VD) if wants_weight and sum_VD is None else None
        grad_bias_V = torch.empty_like(bias_V) if wants_bias else None
        entries, positions, memory = _blocks(hidden_ND, weight_VD)
        operand_ND = operand(hidden_ND)
        for block, columns in enumerate(entries):
            weight_vD = weight_VD[columns]
            operand_vD = memory.operand(weight_vD)
            bias_v = None if bias_V is None else bias_V[columns]
            of_weight_vD = None if sum_VD is None else sum_VD[columns]
            if grad_weight_VD is not None:
                of_weight_vD = torch.zeros_like(weight_vD, dtype=torch.float32)
            of_bias_v = (
                torch.zeros(len(weight_vD), dtype=torch.float32, device=weight_vD.device) if wants_bias else None
            )
            column_N1, here_N1 = _targets_within(targets_N, columns)
            share_N1 = share_WN[block].unsqueeze(-1)
            of_target_N1, of_block_N1 = here_N1 / -share_N1, grad_N1 * share_N1
            for rows in positions:
                hidden_nD, grad_n1 = hidden_ND[rows], of_block_N1[rows]
                logits_nv = memory.logits(operand_ND[rows], operand_vD, bias_v, ctx.scale, ctx.softcap)
                q_nv = memory.softmax(logits_nv)
                q_nv.scatter_add_(-1, column_N1[rows], of_target_N1[rows])
                if ctx.softcap is not None:
                    q_nv.addcmul_(q_nv, logits_nv.div_(ctx.softcap).square_(), value=-1.0)
                if of_bias_v is not None:
                    of_bias_v += grad_n1.squeeze(-1) @ q_nv
                q_nv = memory.narrow(q_nv)
                if grad_hidden_ND is not None:
                    grad_hidden_ND[rows].addcmul_((q_nv @ weight_vD).float(), grad_n1)
                if of_weight_vD is not None:
                    scaled_nD = (hidden_nD.float() * grad_n1).to(weight_vD.dtype)
                    if of_weight_vD.dtype == weight_vD.dtype:
                        of_weight_vD.addmm_(q_nv.t(), scaled_nD)
                    else:
                        of_weight_vD += q_nv.t() @ scaled_nD
            if grad_weight_VD is not None and of_weight_vD is not None:
                grad_weight_VD[columns] = of_weight_vD
            if grad_bias_V is not None and of_bias_v is not None:
                grad_bias_V[columns] = of_bias_v
        grad_hidden_ND = None if grad_hidden_ND is None else grad_hidden_ND.to(hidden_ND.dtype)
        return grad_hidden_ND, grad_weight_VD, grad_bias_V, None, None, None, None, None, None


class _Block:
    """Memory for one block of logits at a time, taken once: fresh memory costs a CPU more than what is done in it.

    Logits are float32 whatever the weights are: rounded to bfloat16, those of a vocabulary of 128,256 would move a
    token's log-prob by 0.03 nats.
    """

    def __init__(self, positions: int, entries: int, weight_VD: Tensor) -> None:
        self._dtype, size = weight_VD.dtype, positions * entries
        self._logits = torch.empty(size, dtype=torch.float32, device=weight_VD.device)
        self._softmax = torch.empty_like(self._logits)
        self._narrow = self._logits if self._dtype == torch.float32 else weight_VD.new_empty(size)
        widened = weight_VD.device.type == "cpu" and self._dtype != torch.float32
        self._operand = self._logits.new_empty(entries * weight_VD.shape[-1] if widened else 0)

    def operand(self, weight_vD: Tensor) -> Tensor:
        """A block of the weights for :meth:`logits`, until the next call."""
        return operand(weight_vD, _shaped(self._operand, *weight_vD.shape) if len(self._operand) else None)

    def logits(
        self, operand_nD: Tensor, operand_vD: Tensor, bias_v: Tensor | None, scale: float, softcap: float | None
    ) -> Tensor:
        """``[n,v]``, float32, of hidden states and weights as operands of :func:`mpo.policy.products.wide_product`."""
        memory_nv = _shaped(self._logits, len(operand_nD), len(operand_vD))
        logits_nv = wide_product(operand_nD, operand_vD.t(), memory_nv, self._dtype)
        if bias_v is not None:
            logits_nv += bias_v
        if scale != 1.0:
            logits_nv *= scale
        return logits_nv if softcap is None else logits_nv.div_(softcap).tanh_().mul_(softcap)

    def softmax(self, logits_nv: Tensor) -> Tensor:
        """Of each row, float32."""
        return torch.softmax(logits_nv, -1, out=_shaped(self._softmax, *logits_nv.shape))

    def narrow(self, values_nv: Tensor) -> Tensor:
        """The float32 values in the weights' precision; the logits may be gone."""
        return values_nv if self._dtype == torch.float32 else _shaped(self._narrow, *values_nv.shape).copy_(values_nv)


def _shaped(memory: Tensor, rows: int, columns: int) -> Tensor:
    return memory[: rows * columns].view(rows, columns)


def _blocks(hidden_ND: Tensor, weight_VD: Tensor) -> tuple[list[slice], list[slice], _Block]:
    """Entries of the vocabulary and positions of the blocks, and memory for one."""
    device = hidden_ND.device.type
    blocks = -(-len(weight_VD) // VOCABULARY_AT_ONCE[device])
    columns = -(-len(weight_VD) // blocks)  # of one size where it can be: see mpo.layout.shape_buckets
    rows = max(1, LOGITS_AT_ONCE[device] // columns)
    rows = min(len(hidden_ND), max(rows - rows % ROWS, rows % ROWS))
    memory = _Block(rows, columns, weight_VD)
    return _slices(len(weight_VD), columns), _slices(len(hidden_ND), rows), memory


def _slices(length: int, size: int) -> list[slice]:
    return [slice(start, min(start + size, length)) for start in range(0, length, size)]


def _targets_within(targets_N: Tensor, columns: slice) -> tuple[Tensor, Tensor]:
    """Each target's column in the block ``columns`` of the vocabulary, and whether it is there (else 0), ``[N,1]``."""
    here_N = (targets_N >= columns.start) & (targets_N < columns.stop)
    column_N = (targets_N - columns.start).where(here_N, 0)  # no indices of some rows, which a GPU would be waited for
    return column_N.unsqueeze(-1), here_N.unsqueeze(-1)


class LogitExtras(NamedTuple):
    """What a family does to its logits after the head: a factor, then a soft cap by tanh or None."""

    factor: float
    softcap: float | None


def logit_extras(config: Any) -> list[LogitExtras]:
    """The readings of a text model's config, the usual one first.

    ``logit_scale`` (cohere), ``lm_head_multiplier`` (falcon_h1) and ``output_multiplier`` multiply; ``logits_scaling``
    divides (granite) or, the second reading, multiplies (hyperclovax). Which one is a family's, and whether there is
    more to it, is found by comparing logits (:mod:`mpo.policy.agreement`).
    """

    def value(*names: str) -> float | None:
        return next((float(v) for name in names if (v := getattr(config, name, None)) is not None), None)

    factor = 1.0
    for name in ("logit_scale", "lm_head_multiplier", "output_multiplier"):
        factor *= 1.0 if (found := value(name)) is None else found
    scaling = value("logits_scaling")
    softcap = value("final_logit_softcapping", "logits_soft_cap", "output_logit_soft_cap")
    factors = [factor] if scaling is None else [factor / scaling, factor * scaling]
    return [LogitExtras(one, softcap) for one in factors]
