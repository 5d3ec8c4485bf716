"""DeepSpeed's engine behind a narrow door: the rest of the package sees no more of it than this and its set-up."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch import distributed as dist

from mpo.config.training import Precision, TrainConfig
from mpo.layout.batch import TokenBatch
from mpo.planning.memory import effective_stage
from mpo.policy.attention import KeptPrompt
from mpo.policy.module import FirstPass, PolicyModule, ResponseLogps
from mpo.policy.sequence_parallel import SequenceShares
from mpo.train.files import load_tensors
from mpo.train.optimizer import build_optimizer, build_scheduler
from mpo.train.zero import (
    CheckpointFiles,
    Keep,
    deepspeed_config,
    init_process_group,
    initialize,
    sequence_shares,
    spread,
)

WEIGHTS = "weights-{}.pt"
"""File of a process's part of the weights."""


class _Tensors(nn.Module):
    """The policy with a tuple for output: DeepSpeed hangs its backward hooks on tuples of tensors."""

    def __init__(self, policy: PolicyModule) -> None:
        super().__init__()
        self.policy = policy

    def forward(self, batch: TokenBatch, prompt: KeptPrompt | None, first: FirstPass | None) -> tuple[Tensor, ...]:
        logps: ResponseLogps = self.policy(batch, prompt, first)
        square_sums = () if logps.token_square_sums_BKT is None else (logps.token_square_sums_BKT,)
        return logps.token_logps_BKT, logps.token_mask_BKT, *square_sums


def forward_engine(policy: PolicyModule, config: TrainConfig) -> Any:
    """DeepSpeed's engine around a policy in shards that nobody trains; called as :class:`_Tensors` is."""
    hidden = int(policy.head.weight.shape[-1])
    zero = deepspeed_config(config, 3, sum(parameter.numel() for parameter in policy.parameters()), hidden)
    spread(policy, zero, policy.base.dtype)
    return initialize(model=_Tensors(policy), config=zero)


class Engine:
    """A policy under training in a process group.

    Args:
        policy: moved to this process's device; its parameters are the engine's from now on.
        config: optimizer, precision and ZeRO.
        total_steps: what the schedule spans.

    Attributes:
        group: of the processes that forward each batch together, which one this process is in, of ``groups``.
        leads: whether it is the first one there: what all of them compute alike counts in one of them.
    """

    def __init__(self, policy: PolicyModule, config: TrainConfig, total_steps: int) -> None:
        init_process_group()
        self.rank, self.world_size = dist.get_rank(), dist.get_world_size()
        self.config, self.stage = config, effective_stage(config, config.settled.zero_stage, self.world_size)
        policy.sequence = sequence_shares(config.settled.sequence_parallel)
        self.groups, self.leads = self.world_size // policy.sequence.size, policy.sequence.rank == 0
        self.group = self.rank // policy.sequence.size
        optimizer = build_optimizer(policy, config)
        hidden = int(policy.head.weight.shape[-1])
        parameters = sum(parameter.numel() for parameter in policy.parameters())
        zero = deepspeed_config(config, self.stage, parameters, hidden)
        if self.stage == 3:
            spread(policy, zero, policy.base.dtype)
        self.deepspeed = initialize(
            model=_Tensors(policy),
            optimizer=optimizer,
            lr_scheduler=build_scheduler(optimizer, config, total_steps),
            config=zero,
        )
        self._files = self.deepspeed.checkpoint_engine = CheckpointFiles(self.deepspeed._config)
        self.deepspeed._copy_recovery_script = lambda folder: None  # programs that would unpickle whatever is there
        self.device = torch.device(self.deepspeed.device)
        self._policy, self._kept_sums = policy, dict[nn.Parameter, Tensor]()
        if self.world_size == 1 and (self.stage == 0 or (self.stage == 1 and config.precision is Precision.bf16)):
            # Nothing to reduce. In the other cases this is also where gradients get into the optimizer's partition.
            self.deepspeed.enable_backward_allreduce = False
            if self.device.type == "cpu":  # a GPU would add up in an order, so to digits, that change from run to run
                policy.sum_in_place(self._sum_of)
        self.deepspeed.train()

    def __call__(
        self, batch: TokenBatch, prompt: KeptPrompt | None = None, first: FirstPass | None = None
    ) -> ResponseLogps:
        """Log-probs of ``batch`` under the current policy; for the others see :meth:`PolicyModule.forward`."""
        logps = ResponseLogps(*self.deepspeed(batch.to(self.device), prompt, first))
        if self.stage == 3 and not torch.is_grad_enabled():
            self._record_no_trace()
        return logps

    def _record_no_trace(self) -> None:
        """Let ZeRO-3 learn no order of modules, by which it fetches weights ahead, from a pass without backward.

        A pass with one would go beyond such an order and have it thrown away, again and again where the two take turns.
        One without keeps to the beginning of an order that was learned from a whole pass.
        """
        coordinator = self.deepspeed.optimizer.parameter_offload.get_param_coordinator()
        if coordinator.is_record_trace():
            coordinator._invalidate_trace()

    def accumulate(self, last: bool) -> None:
        """Announce a micro-step's forward and backward; ``last`` of its window."""
        self.deepspeed.set_gradient_accumulation_boundary(last)

    def backward(self, loss: Tensor) -> None:
        """Add the gradient of this process's part of the global loss; parts are summed over processes.

        DeepSpeed averages over processes, so the part is multiplied by their number.
        """
        self.deepspeed.backward(loss * self.world_size, scale_wrt_gas=False)

    def step(self) -> float:
        """Clip and update. Returns the gradient norm before clipping; if it isn't finite, nothing was updated."""
        if self.stage > 0:
            self.deepspeed.step()
            norm = float(self.deepspeed.get_global_grad_norm())
            return norm if self.deepspeed.was_step_applied() else math.inf
        parameters = [parameter for parameter in self.deepspeed.module.parameters() if parameter.grad is not None]
        norm = float(nn.utils.clip_grad_norm_(parameters, self.config.clip if self.config.clip > 0 else math.inf))
        if math.isfinite(norm):
            self.deepspeed.step()
        return norm

    def _sum_of(self, parameter: nn.Parameter) -> Tensor:
        """Where the gradient of a parameter is summed up in float32 until the step, in a process alone."""
        if self.stage == 0:
            if parameter.grad is None:  # DeepSpeed lets go of it after a step, and fresh memory is slow
                if parameter not in self._kept_sums:
                    self._kept_sums[parameter] = torch.empty_like(parameter)
                parameter.grad = self._kept_sums[parameter].zero_()
            return parameter.grad
        zero = self.deepspeed.optimizer
        for members, sums, has in zip(
            zero.bf16_groups, zero.fp32_groups_gradients, zero.fp32_groups_has_gradients, strict=True
        ):
            for number, member in enumerate(members):
                if member is parameter:
                    has[number] = True
                    return sums[number].view_as(parameter)  # type: ignore[no-any-return]
        raise ValueError("DeepSpeed does not train this parameter")

    @property
    def lr(self) -> float:
        """The learning rate of the next step."""
        return float(self.deepspeed.get_lr()[0])

    def sum(self, values: Tensor) -> Tensor:
        """The sum over processes, on the CPU."""
        total = values.to(self.device)
        dist.all_reduce(total)
        return total.cpu()

    def gather(self, values: list[str]) -> list[str]:
        """All processes' lists, joined in rank order."""
        parts: list[list[str]] = [[] for _ in range(self.world_size)]
        dist.all_gather_object(parts, values)
        return [value for part in parts for value in part]

    def wait(self) -> None:
        """Until every process is here."""
        dist.barrier()

    def close(self) -> None:
        """Give the policy's gradients back to autograd, and its rows to this process; it no longer holds on to this
        engine."""
        self._policy.sum_in_place(None)
        self._policy.sequence = SequenceShares()
        self._kept_sums.clear()

    def save(self, keep: Keep) -> None:
        """Hand ``keep`` weights, optimizer and schedule; a frozen model under adapters is left out. All processes take
        part."""
        self._files.keep = keep
        self.deepspeed.save_checkpoint(
            ".", tag="state", save_latest=False, exclude_frozen_parameters=self.config.lora is not None
        )

    def load(self, folder: Path) -> None:
        """What :meth:`save` handed over. All processes take part.

        Raises:
            pickle.UnpicklingError: a file holds what no checkpoint does; it was not made.
        """
        self.deepspeed.load_checkpoint(str(folder), tag="state", load_module_strict=self.config.lora is None)

    def save_weights(self, keep: Keep) -> None:
        """Hand ``keep`` the trained weights alone: the first process does, under ZeRO 3 each one its part."""
        if self.rank == 0 or self.stage == 3:
            keep(self._weights(), WEIGHTS.format(self.rank))

    def load_weights(self, folder: Path) -> None:
        """What :meth:`save_weights` handed over, to be exported: the optimizer keeps its own. All processes take part.

        Raises:
            pickle.UnpicklingError: a file holds what no checkpoint does; it was not made.
        """
        zero = self.deepspeed.optimizer
        if self.stage == 3:
            zero.checkpoint_event_prologue()  # no process holds more than its part
        saved = load_tensors(folder / WEIGHTS.format(self.rank if self.stage == 3 else 0))
        for name, tensor in self._weights().items():
            tensor.copy_(saved[name])
        if self.stage == 3:
            zero.checkpoint_event_epilogue()

    def _weights(self) -> dict[str, Tensor]:
        """The trained weights, by name, as far as this process holds them."""
        trained = ((name, one) for name, one in self._policy.named_parameters() if one.requires_grad)
        return {name: getattr(one, "ds_tensor", one).detach() for name, one in trained}
