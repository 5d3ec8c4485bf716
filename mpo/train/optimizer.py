"""AdamW and the learning-rate schedule."""

from __future__ import annotations

import torch
from torch import nn
from torch.optim.lr_scheduler import LRScheduler
from transformers import get_scheduler

from mpo.config.training import TrainConfig


def build_optimizer(module: nn.Module, config: TrainConfig) -> torch.optim.AdamW:
    """AdamW (arXiv 1711.05101) over the trainable parameters; norms and biases, i.e. vectors, don't decay."""
    trainable = [parameter for parameter in module.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in trainable if p.ndim >= 2], "weight_decay": config.weight_decay},
        {"params": [p for p in trainable if p.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(
        [group for group in groups if group["params"]],
        lr=config.lr,
        betas=(config.adam_beta1, config.adam_beta2),
        eps=config.adam_eps,
        fused=True,
    )


def build_scheduler(optimizer: torch.optim.Optimizer, config: TrainConfig, total_steps: int) -> LRScheduler:
    """Linear warm-up over ``warmup_ratio`` of ``total_steps``, then the configured schedule."""
    warmup = int(config.warmup_ratio * total_steps)
    return get_scheduler(  # type: ignore[no-any-return]
        config.schedule.value, optimizer, num_warmup_steps=warmup, num_training_steps=total_steps
    )
