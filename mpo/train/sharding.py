"""A frozen policy that is larger than a card: its weights spread over the cards of a group, gathered layer by layer."""

from __future__ import annotations

from collections.abc import Callable

import torch

from mpo.config.training import Precision, TrainConfig
from mpo.layout.batch import TokenBatch
from mpo.logprobs.scoring import FrozenPolicy
from mpo.planning.memory import WHOLE
from mpo.policy.attention import KeptPrompt
from mpo.policy.devices import gathered_from_all, place_in_group
from mpo.policy.module import PolicyModule, ResponseLogps
from mpo.train.engine import forward_engine
from mpo.train.zero import init_process_group, sequence_shares


class ShardedPolicy:
    """As ZeRO-3 holds a model, without gradient (arXiv 1910.02054). All processes of the group forward as often.

    Args:
        policy: on the CPU; its parameters are shards from now on.
    """

    def __init__(self, policy: PolicyModule) -> None:
        init_process_group()
        precision = Precision.bf16 if policy.base.dtype == torch.bfloat16 else Precision.fp32
        self._forward: Callable[..., tuple[torch.Tensor, ...]] = forward_engine(
            policy, TrainConfig(precision=precision)
        )
        self._policy = policy

    @property
    def shares_prefix(self) -> bool:
        """As of the policy."""
        return self._policy.shares_prefix

    @property
    def device(self) -> torch.device:
        """Of this process's shard."""
        return self._policy.device

    @property
    def together(self) -> int:
        """As of the policy."""
        return self._policy.together

    def eval(self) -> ShardedPolicy:
        """As of any module."""
        self._policy.eval()
        return self

    def forwards(self, mine: int) -> int:
        """As many as the process with the most has."""
        return max(gathered_from_all(mine))

    def __call__(self, batch: TokenBatch, prompt: KeptPrompt | None = None) -> ResponseLogps:
        """See :meth:`PolicyModule.forward`."""
        return ResponseLogps(*self._forward(batch, prompt, None))


def on_device(policy: PolicyModule, device: torch.device, sequence_parallel: int = 1) -> FrozenPolicy:
    """The policy on ``device``: whole where it fits or is in 4 bits, else in shards over the group.

    Args:
        sequence_parallel: neighbouring processes that forward every row together.
    """
    if sequence_parallel > 1:
        init_process_group()
        policy.sequence = sequence_shares(sequence_parallel)
    spreads = all(parameter.is_floating_point() for parameter in policy.parameters())
    if device.type == "cuda" and place_in_group()[1] > 1 and spreads:
        weights = sum(parameter.numel() * parameter.element_size() for parameter in policy.parameters())
        if weights > WHOLE * torch.cuda.get_device_properties(device).total_memory:
            return ShardedPolicy(policy)
    return policy.to(device)
