"""A causal language model as a map from a batch of tokens to log-probs of response tokens."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from mpo.logprobs.batch import TokenBatch
from mpo.logprobs.head import ChunkedHead, logit_extras


@dataclass(frozen=True, eq=False)
class ResponseLogps:
    """Log-probs of the responses of B sets.

    Attributes:
        token_logps_BKT: float32, log π(token | prompt, tokens before it), in nats; 0 outside ``token_mask_BKT``.
        token_mask_BKT: bool, True at response tokens; T is the longest response's length.
    """

    token_logps_BKT: Tensor
    token_mask_BKT: Tensor

    @property
    def logps_BK(self) -> Tensor:
        """log π(y|x): the float32 sum over response tokens."""
        return self.token_logps_BKT.sum(-1)

    @property
    def lengths_BK(self) -> Tensor:
        """Response tokens, long; 0 where a response was not forwarded."""
        return self.token_mask_BKT.sum(-1)


class PolicyModule(nn.Module):
    """Model and head in one module, so that ZeRO-3's hooks see every use of a parameter.

    Args:
        lm: a Hugging Face causal language model, or a peft model around one.
    """

    def __init__(self, lm: nn.Module) -> None:
        super().__init__()
        self.lm = lm
        base = self.base
        self.head = ChunkedHead(base.get_output_embeddings(), *logit_extras(base.config.get_text_config()))

    @property
    def base(self) -> PreTrainedModel:
        """The Hugging Face model itself, adapters (where there are any) left in place."""
        lm = self.lm
        return lm if isinstance(lm, PreTrainedModel) else lm.get_base_model()  # type: ignore[operator,no-any-return]

    @property
    def device(self) -> torch.device:
        """Where the parameters live."""
        return next(self.parameters()).device

    def forward(self, batch: TokenBatch) -> ResponseLogps:
        """Log-probs of every forwarded response token of ``batch``, which is on this module's device."""
        backbone = getattr(self.base, self.base.base_model_prefix)
        hidden_RTD = backbone(
            input_ids=batch.input_ids_RT, attention_mask=batch.attention_mask_RT, use_cache=False
        ).last_hidden_state
        # The token at position t is predicted at position t - 1.
        row_N, before_N = batch.response_mask_RT[:, 1:].nonzero(as_tuple=True)
        targets_N = batch.input_ids_RT[row_N, before_N + 1]
        logps_N = self.head(hidden_RTD[row_N, before_N], targets_N)

        lengths_R = batch.response_mask_RT.sum(-1)
        first_R = batch.response_mask_RT.long().argmax(-1)
        longest = int(lengths_R.max())
        where = (batch.set_index_R[row_N], batch.response_index_R[row_N], before_N + 1 - first_R[row_N])
        shape = (batch.sets, batch.responses, longest)
        token_logps_BKT = torch.zeros(shape, dtype=torch.float32, device=logps_N.device).index_put(where, logps_N)
        token_mask_BKT = torch.zeros(shape, dtype=torch.bool, device=logps_N.device)
        token_mask_BKT[where] = True
        return ResponseLogps(token_logps_BKT, token_mask_BKT)
