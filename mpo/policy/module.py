"""A causal language model as a map from a batch of tokens to log-probs of response tokens."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel

from mpo.layout.batch import TokenBatch
from mpo.policy import attention
from mpo.policy.cpu.vocabulary import SumOf, sum_in_place
from mpo.policy.head import ChunkedHead, LogitExtras, logit_extras
from mpo.policy.model_class import backbone
from mpo.policy.sequence_parallel import SequenceShares


@dataclass(frozen=True, eq=False)
class ResponseLogps:
    """Log-probs of the responses of B sets.

    Attributes:
        token_logps_BKT: float32, log π(token | prompt, tokens before it), in nats; 0 outside ``token_mask_BKT``.
        token_mask_BKT: bool, True at response tokens; T is the longest response's length.
        token_square_sums_BKT: float32, log Σ_v π(v | prompt, tokens before)², without gradient; 0 outside the mask;
            None unless :attr:`mpo.policy.head.ChunkedHead.wants_square_sums`.
    """

    token_logps_BKT: Tensor
    token_mask_BKT: Tensor
    token_square_sums_BKT: Tensor | None = None

    @property
    def logps_BK(self) -> Tensor:
        """log π(y|x): the float32 sum over response tokens."""
        return self.token_logps_BKT.sum(-1)

    @property
    def lengths_BK(self) -> Tensor:
        """Response tokens, long; 0 where a response was not forwarded."""
        return self.token_mask_BKT.sum(-1)

    def within(self, mask_BKT: Tensor) -> ResponseLogps:
        """Those of the tokens in ``mask_BKT`` alone."""

        def kept(values_BKT: Tensor) -> Tensor:
            return torch.where(mask_BKT, values_BKT, 0.0)

        square_sums = self.token_square_sums_BKT
        return ResponseLogps(
            kept(self.token_logps_BKT),
            self.token_mask_BKT & mask_BKT,
            None if square_sums is None else kept(square_sums),
        )


class ModelSource(NamedTuple):
    """A folder or hub name, its revision, and whether code in it may run."""

    path: str
    revision: str | None
    trust_remote_code: bool


@dataclass(eq=False)
class FirstPass:
    """What the first forward pass of a batch leaves for the second, of which the gradient alone is wanted.

    Attributes:
        outputs: of every attention layer, where they are kept.
        normalisers_WM: of the head, see :class:`mpo.policy.head.ChunkedHead`; None before the first pass.
    """

    outputs: attention.KeptOutputs | None = None
    normalisers_WM: Tensor | None = None


class PolicyModule(nn.Module):
    """Model and head in one module, so that ZeRO-3's hooks see every use of a parameter.

    Args:
        lm: a Hugging Face causal language model, or a peft model around one.
        attend: back end for rows with shared prompts; default: the device's own.
        extras: what the family does to its logits; default: what its config says.

    Attributes:
        source: where the model was loaded from; None: nowhere, it was made in memory.
        own_attention: of transformers, which the model had before prompts were shared; None: it has it still.
        attention_calls: what its layers ask of the back end, where prompts are shared.
        sequence: the processes that forward each batch together, this one among them.
    """

    def __init__(
        self, lm: nn.Module, attend: attention.Backend | None = None, extras: LogitExtras | None = None
    ) -> None:
        super().__init__()
        self.lm = lm
        self.source: ModelSource | None = None
        self.own_attention: str | None = None
        self.attention_calls: frozenset[attention.AttentionCall] = frozenset()
        self.sequence = SequenceShares()
        self._backend = attend
        base = self.base
        self.head = ChunkedHead(
            base.get_output_embeddings(), *(extras or logit_extras(base.config.get_text_config())[0])
        )

    @property
    def base(self) -> PreTrainedModel:
        """The Hugging Face model itself, adapters (where there are any) left in place."""
        lm = self.lm
        return lm if isinstance(lm, PreTrainedModel) else lm.get_base_model()  # type: ignore[operator,no-any-return]

    @property
    def shares_prefix(self) -> bool:
        """Whether a prompt is computed once for all its responses, or once for each."""
        return self.base.config.get_text_config()._attn_implementation == attention.NAME

    @property
    def device(self) -> torch.device:
        """Where the parameters live."""
        return next(self.parameters()).device

    @property
    def together(self) -> int:
        """Processes that forward each batch together, this one included."""
        return self.sequence.size

    def forwards(self, mine: int) -> int:
        """See :class:`mpo.logprobs.scoring.FrozenPolicy`: no process waits for another's forward pass."""
        return mine

    def train(self, mode: bool = True) -> PolicyModule:
        """As of any module, but the language model stays in evaluation mode: no dropout, no noise, no dropped layers.

        Layers that are computed again in backward look at their own mode, so they alone follow ``mode``.
        """
        super().train(mode)
        self.lm.eval()
        for module in self.lm.modules():
            if getattr(module, "gradient_checkpointing", False) is True:
                module.training = mode
        return self

    def sum_in_place(self, sum_of: Callable[[nn.Parameter], Tensor] | None) -> None:
        """Let the gradients of embedding and head be added to float32 tensors, ``sum_of`` their weights.

        Of these weights autograd's gradient is the whole one no longer, until None gives it back to autograd.
        """
        embedding = self.base.get_input_embeddings()
        looked_up, projected = embedding.weight, self.head.weight
        assert isinstance(looked_up, nn.Parameter) and isinstance(projected, nn.Parameter)

        def of(weight: nn.Parameter) -> SumOf | None:
            return None if sum_of is None or not weight.requires_grad else partial(sum_of, weight)

        self.head.sum_of = of(projected)
        sum_in_place(embedding, of(looked_up))

    def forward(
        self, batch: TokenBatch, prompt: attention.KeptPrompt | None = None, first: FirstPass | None = None
    ) -> ResponseLogps:
        """Log-probs of every forwarded response token of ``batch``, which is on this module's device.

        Args:
            prompt: where ``batch`` is a piece of a set and the prompt is shared. The first piece fills it, the others,
                which skip the prompt, read it.
            first: of a batch that is forwarded twice. The first pass fills it; the values of the second, which reads
                it, may be 0: only their gradient is wanted.

        Raises:
            ValueError: the batch skips its prompt, and none is given or another one.
        """
        response_M, step_M, sequence = batch.response_M, batch.step_M, self.sequence
        # The head may get the first token some more times, which nobody looks at: its products come in few sizes.
        more = (0, sequence.padded(len(step_M), self.head.weight) - len(step_M))
        at_M = sequence.share(functional.pad(response_M, more)), sequence.share(functional.pad(step_M, more))
        target_M = batch.input_ids_N[batch.response_index_RT[at_M]]
        hidden_MD = self._packed(batch, *at_M, prompt, first) if self.shares_prefix else self._rows(batch, *at_M)
        found = self.head(hidden_MD, target_M, None if first is None else first.normalisers_WM)
        if first is not None and first.normalisers_WM is None:
            first.normalisers_WM = found.normalisers_WN
        where = (batch.set_index_R[response_M], batch.response_index_R[response_M], step_M)
        shape = (batch.sets, batch.responses, batch.response_index_RT.shape[1])

        def placed(values_N: Tensor) -> Tensor:
            zeros_BKT = torch.zeros(shape, dtype=torch.float32, device=values_N.device)
            return zeros_BKT.index_put(where, sequence.same(values_N)[: len(step_M)])

        token_mask_BKT = torch.zeros(shape, dtype=torch.bool, device=hidden_MD.device)
        token_mask_BKT = token_mask_BKT.index_put(where, torch.ones_like(step_M, dtype=torch.bool))
        square_sums_BKT = None if found.square_sums_N is None else placed(found.square_sums_N)
        return ResponseLogps(placed(found.logps_N), token_mask_BKT, square_sums_BKT)

    def _packed(
        self,
        batch: TokenBatch,
        response_M: Tensor,
        step_M: Tensor,
        prompt: attention.KeptPrompt | None,
        first: FirstPass | None,
    ) -> Tensor:
        """Hidden states [M,D] at the position before each response token, all tokens in one row."""
        skipped, sequence = batch.skipped, self.sequence
        if skipped and prompt is None:
            raise ValueError("the batch skips its prompt, and no other piece's is given")
        batch = batch.filled(skipped + sequence.padded(batch.tokens - skipped, self.head.weight))
        across = None if prompt is None else prompt.across(batch)
        hidden_1ND = backbone(self.base)(
            input_ids=sequence.share(batch.input_ids_N[skipped:]).unsqueeze(0),
            position_ids=sequence.share(batch.position_ids_N[skipped:]).unsqueeze(0),
            use_cache=False,
            shared_prefix=self._attend(batch),
            kept_prompt=across,
            kept_outputs=None if first is None else first.outputs,
            sequence=sequence,
        ).last_hidden_state
        hidden_ND = sequence.whole(hidden_1ND[0])
        hidden_ND = hidden_ND if across is None else across("hidden states", hidden_ND)
        prompts_S = batch.prompt_lengths_S
        last_S = batch.prompt_index_SP.gather(1, prompts_S[:, None] - 1).squeeze(1)
        previous_M = batch.response_index_RT[response_M, (step_M - 1).clamp(min=0)]
        before_M = torch.where(step_M == 0, last_S[batch.prompt_of_R[response_M]], previous_M)
        return hidden_ND.index_select(0, before_M)

    def _rows(self, batch: TokenBatch, response_M: Tensor, step_M: Tensor) -> Tensor:
        """The same with a right-padded row for each response; attention is causal, so it never sees the padding."""
        prompts_R = batch.prompt_lengths_S[batch.prompt_of_R]
        ends_R = prompts_R + batch.response_lengths_R
        at_L = torch.arange(batch.longest, device=ends_R.device).expand(len(ends_R), -1)
        prompt_RL = batch.prompt_index_SP[batch.prompt_of_R].gather(
            1, at_L.clamp(max=batch.prompt_index_SP.shape[1] - 1)
        )
        step_RL = (at_L - prompts_R[:, None]).clamp(0, batch.response_index_RT.shape[1] - 1)
        index_RL = torch.where(at_L < prompts_R[:, None], prompt_RL, batch.response_index_RT.gather(1, step_RL))
        hidden_RLD = backbone(self.base)(
            input_ids=batch.input_ids_N[index_RL],
            attention_mask=(at_L < ends_R[:, None]).long(),
            use_cache=False,
        ).last_hidden_state
        return hidden_RLD[response_M, prompts_R[response_M] + step_M - 1]

    def _attend(self, batch: TokenBatch) -> attention.Attend:
        backend = self._backend or attention.DEFAULT[batch.input_ids_N.device.type]
        return backend(batch)
