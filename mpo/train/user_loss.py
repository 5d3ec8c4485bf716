"""A loss as the trainer calls it: its result is what the contract says, or the run stops with one line."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from mpo.errors import ConfigError
from mpo.failures.user_code import author, user_code
from mpo.losses import Loss, LossInputs, LossOutput
from mpo.losses.checks import KEY, check_keep, check_values


def call_loss(loss: Loss, inputs: LossInputs) -> LossOutput:
    """``loss(inputs)``, its types and shapes checked, without a wait for the device.

    Raises:
        ConfigError: it raised something, is not one number for each set, or has no gradient though the inputs have one.
    """
    with _code_of(loss):
        output = loss(inputs)
    name, sets = type(loss).__name__, inputs.policy_logps_BK.shape[0]
    if not isinstance(output, LossOutput):
        raise _wrong(f"{name} returned {type(output).__name__}", "return a LossOutput")
    check_values(f"{name}'s loss_B", output.loss_B, sets)
    check_keep(f"{name}'s keep_B", output.keep_B, sets)
    if not isinstance(output.metrics, Mapping):
        raise _wrong(f"{name}'s metrics are of type {type(output.metrics).__name__}", "return a dict of [B] tensors")
    for metric, values_B in output.metrics.items():
        check_values(f"{name}'s metric '{metric}'", values_B, sets)
    if inputs.policy_logps_BK.requires_grad and torch.is_grad_enabled() and not output.loss_B.requires_grad:
        raise _untrained(name)
    return output


def kept_sets(loss: Loss, scores_BK: Tensor, bins_BK: Tensor, mask_BK: Tensor) -> Tensor:
    """``loss.keep(…)``, bool [B]; raises ConfigError as :func:`call_loss` does."""
    with _code_of(loss):
        keep_B = loss.keep(scores_BK, bins_BK, mask_BK)
    check_keep(f"{type(loss).__name__}.keep", keep_B, mask_BK.shape[0])
    return keep_B


def try_loss(loss: Loss, inputs: LossInputs) -> None:
    """Before the first update: the loss of a copy of ``inputs``, and its gradient with respect to the log-probs.

    Raises:
        ConfigError: as of :func:`call_loss`, or the gradient does not reach the policy's log-probs, or the sets that
            count are others than the trainer divides by.
    """
    name = type(loss).__name__
    tokens_BKT = inputs.policy_token_logps_BKT
    assert tokens_BKT is not None, "the trainer's inputs have log-probs token by token"
    cards = [tokens_BKT.device] if tokens_BKT.is_cuda else []
    # Random numbers that it draws must not move those of the run, or one that goes on would not draw the same.
    with torch.random.fork_rng(cards), torch.enable_grad():
        leaf_BKT = tokens_BKT.detach().clone().requires_grad_()
        copy = replace(inputs, policy_logps_BK=leaf_BKT.sum(-1), policy_token_logps_BKT=leaf_BKT)
        output = call_loss(loss, copy)
        keep_B = kept_sets(loss, inputs.scores_BK, inputs.bins_BK, inputs.mask_BK)
        if not bool((output.keep_B == keep_B).all()):
            raise _wrong(f"{name} keeps other sets than its own keep() says", "return keep_B as keep() has it")
        if not bool(keep_B.any()):
            return
        total = torch.where(keep_B, output.loss_B, torch.zeros_like(output.loss_B)).sum()
        (gradient_BKT,) = torch.autograd.grad(total, leaf_BKT, allow_unused=True)
    if gradient_BKT is None:
        raise _untrained(name)


def _code_of(loss: Loss) -> Any:
    return user_code(*author(loss.parts()), KEY)


def _untrained(name: str) -> ConfigError:
    what = f"{name}'s result has no gradient with respect to the policy's log-probs, so that nothing would be trained"
    return _wrong(what, "compute it from inputs.policy_logps_BK, without detach()")


def _wrong(what: str, remedy: str) -> ConfigError:
    return ConfigError(what, KEY, remedy)
