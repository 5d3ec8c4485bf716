"""The contract of a loss, and checks that their fields share."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from mpo.errors import ConfigError
from mpo.losses.checks import check_keep, check_values
from mpo.losses.inputs import LossInputs, LossOutput, win_rates
from mpo.losses.metrics import rank_metrics, set_metrics
from mpo.partition import Partition, Shape

ANY_BINS = frozenset(Shape)
TWO_SIDES = frozenset({Shape.two, Shape.pair})
ORDERED_BINS = frozenset({Shape.two, Shape.pair, Shape.ordered})


@dataclass(frozen=True)
class Loss(ABC):
    """A loss of one response set; fields are hyper-parameters, class attributes say what it needs.

    Attributes:
        needs_reference: reads reference log-probs; where False none need be computed.
        needs_token_logps: reads log-probs token by token, of the policy and of the reference.
        needs_mismatched_kl: reads ``LossInputs.mismatched_log_ratio``.
        needs_win_rates: reads ``LossInputs.win_rates_BK``, over dropped responses too.
        needs_wpo_weights: reads ``LossInputs.wpo_log_weights_BK``.
        contrasts: False where it uses every set, also one without signal.
        needs_scores: False where a set without scores will do.
        needs_sides: contrasts responses of different bins, so that a set with one bin has no signal.
        continuous: False where its value jumps with the order of the implicit rewards, so that at policy = reference,
            where all are equal, rounding decides it.
        default_partition: name in ``mpo.partition.PARTITIONS``.
        fits: shapes of partition that it is defined for.
    """

    needs_reference: ClassVar[bool] = False
    needs_token_logps: ClassVar[bool] = False
    needs_mismatched_kl: ClassVar[bool] = False
    needs_win_rates: ClassVar[bool] = False
    needs_wpo_weights: ClassVar[bool] = False
    contrasts: ClassVar[bool] = True
    needs_scores: ClassVar[bool] = True
    needs_sides: ClassVar[bool] = True
    continuous: ClassVar[bool] = True
    default_partition: ClassVar[str] = "mean"
    fits: ClassVar[frozenset[Shape]] = TWO_SIDES

    def __call__(self, inputs: LossInputs) -> LossOutput:
        """Loss, keep mask and metrics of each set.

        Raises:
            ValueError: an input that the loss needs is missing.
            ConfigError: ``keep`` or ``per_set`` gave something else than a mark or a number for each set.
        """
        name, sets = type(self).__name__, inputs.mask_BK.shape[0]
        keep_B = self.keep(inputs.scores_BK, inputs.bins_BK, inputs.mask_BK)
        check_keep(f"{name}.keep", keep_B, sets)
        if self.needs_win_rates and inputs.win_rates_BK is None:
            inputs = replace(inputs, win_rates_BK=win_rates(inputs.scores_BK, inputs.mask_BK))
        active_BK = inputs.mask_BK & (inputs.bins_BK >= 0) & keep_B[:, None]
        loss_B = self.per_set(inputs.only(active_BK))
        check_values(f"{name}.per_set", loss_B, sets)
        with torch.no_grad():
            real = inputs.only(inputs.mask_BK)
            metrics = set_metrics(self.implicit_reward(real), real) | self.extra_metrics(inputs.only(active_BK))
        return LossOutput(torch.where(keep_B, loss_B, torch.zeros_like(loss_B)), keep_B, metrics)

    @abstractmethod
    def per_set(self, inputs: LossInputs) -> Tensor:
        """Loss of each set, [B]; of inputs without inf or nan, and any finite number for a set with no signal."""

    @abstractmethod
    def implicit_reward(self, inputs: LossInputs) -> Tensor:
        """The number by which the loss ranks responses, [B,K]."""

    def extra_metrics(self, inputs: LossInputs) -> dict[str, Tensor]:
        """Metrics of this loss alone, [B] each."""
        return {}

    def rank_metrics(self, inputs: LossInputs) -> dict[str, Tensor]:
        """Implicit reward and likelihood by score rank, see ``mpo.losses.metrics.rank_metrics``."""
        with torch.no_grad():
            real = inputs.only(inputs.mask_BK)
            return rank_metrics(self.implicit_reward(real), real)

    def keep(self, scores_BK: Tensor, bins_BK: Tensor, mask_BK: Tensor) -> Tensor:
        """Bool [B]: sets with signal; the vectorised twin of ``mpo.partition.no_signal_reason``."""
        kept_BK = mask_BK & (bins_BK >= 0)
        if not self.contrasts:
            return kept_BK.any(-1)
        keep_B = _varies(scores_BK, kept_BK)
        return keep_B & _varies(bins_BK, kept_BK) if self.needs_sides else keep_B

    def parts(self) -> list[Loss]:
        """The losses that it is made of: itself alone, unless it is a sum."""
        return [self]

    @property
    def score_range(self) -> tuple[float, float] | None:
        """Lowest and highest score that it is defined for; None: any."""
        return None

    def check_partition(self, partition: Partition) -> None:
        """Refuse a partition whose bins this loss is not defined for.

        Raises:
            ConfigError: names the shapes that fit.
        """
        if partition.shape not in self.fits:
            wanted = ", ".join(sorted(shape.value for shape in self.fits))
            raise ConfigError(
                f"{type(self).__name__} does not fit bins of shape {partition.shape.value} "
                f"({type(partition).__name__})",
                "partition",
                f"choose one of shape {wanted}; {self.default_partition} is this loss's default",
            )


def _varies(values_BK: Tensor, where_BK: Tensor) -> Tensor:
    values_BK = values_BK.to(torch.float64)
    highest_B = torch.where(where_BK, values_BK, torch.full_like(values_BK, -torch.inf)).amax(-1)
    lowest_B = torch.where(where_BK, values_BK, torch.full_like(values_BK, torch.inf)).amin(-1)
    return highest_B > lowest_B


def check_positive(name: str, value: float) -> None:
    """Raise ConfigError unless the field ``name`` is positive and finite."""
    if not (math.isfinite(value) and value > 0):
        raise ConfigError(f"{name} is {value}", f"loss.{name}", "give a positive number")


def check_not_negative(name: str, value: float) -> None:
    """Raise ConfigError unless the field ``name`` is finite and 0 or more."""
    if not (math.isfinite(value) and value >= 0):
        raise ConfigError(f"{name} is {value}", f"loss.{name}", "give 0 or a positive number")
