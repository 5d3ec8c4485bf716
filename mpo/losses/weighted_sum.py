"""A weighted sum of losses, all of them on the same responses and bins."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import reduce

import torch
from torch import Tensor

from mpo.errors import ConfigError
from mpo.losses.base import Loss, check_not_negative
from mpo.losses.checks import check_keep, check_values
from mpo.losses.inputs import LossInputs
from mpo.losses.pairwise import DPO
from mpo.losses.pointwise import SFT
from mpo.partition import PARTITIONS, Partition, Shape


@dataclass(frozen=True)
class Term:
    """A loss and the factor that it counts with."""

    loss: Loss
    weight: float = 1.0


def _dpo_and_likelihood() -> dict[str, Term]:
    return {"dpo": Term(DPO()), "sft": Term(SFT())}


@dataclass(frozen=True)
class Sum(Loss):
    """Σ_k w_k · L_k.

    It needs what any of its terms needs, and fits bins that all of them fit. A set counts only if it carries signal for
    every term, so that each is a mean over the same sets. The first term's implicit reward is the one that margin and
    accuracy are made from; each term's own value is the metric ``term_NAME``, its further ones are ``NAME_…``.

    Attributes:
        terms: losses and weights by name.

    Raises:
        ConfigError: no term or no weight, a negative weight, or terms that fit no common bins or scores.
    """

    terms: dict[str, Term] = field(default_factory=_dpo_and_likelihood)

    def __post_init__(self) -> None:
        for name, term in self.terms.items():
            check_not_negative(f"terms.{name}.weight", term.weight)
        if not any(term.weight > 0 for term in self.terms.values()):
            raise ConfigError("no term counts", "loss.terms", "give at least one with a weight above 0")
        losses = [term.loss for term in self.terms.values()]
        fits = reduce(frozenset.intersection, (loss.fits for loss in losses))
        if not fits:
            shapes = "; ".join(f"{name}: {_names(term.loss.fits)}" for name, term in self.terms.items())
            what = f"no partition suits all terms, their bins have other shapes ({shapes})"
            raise ConfigError(what, "loss.terms", "leave a term out")
        defaults = (PARTITIONS[loss.default_partition] for loss in losses)
        declared = {
            name: any(getattr(loss, name) for loss in losses)
            for name in (
                *("needs_reference", "needs_token_logps", "needs_mismatched_kl", "needs_win_rates", "needs_scores"),
                *("needs_wpo_weights", "contrasts"),
            )
        }
        declared["needs_sides"] = any(loss.needs_sides for loss in losses if loss.contrasts)
        declared["continuous"] = all(loss.continuous for loss in losses)
        for attribute, value in declared.items():
            object.__setattr__(self, attribute, value)
        object.__setattr__(self, "fits", fits)
        fitting = [kind for kind in defaults if kind.shape in fits]
        names = {kind: name for name, kind in PARTITIONS.items()}
        some = fitting[0] if fitting else next(kind for kind in PARTITIONS.values() if kind.shape in fits)
        object.__setattr__(self, "default_partition", names[some])
        if self.score_range is not None and not self.score_range[0] < self.score_range[1]:
            raise ConfigError("no scores suit all terms", "loss.terms", "leave a term out")

    @property
    def score_range(self) -> tuple[float, float] | None:
        ranges = [term.loss.score_range for term in self.terms.values() if term.loss.score_range is not None]
        return (max(low for low, _ in ranges), min(high for _, high in ranges)) if ranges else None

    def parts(self) -> list[Loss]:
        return [part for term in self.terms.values() for part in term.loss.parts()]

    def check_partition(self, partition: Partition) -> None:
        for term in self.terms.values():
            term.loss.check_partition(partition)

    def keep(self, scores_BK: Tensor, bins_BK: Tensor, mask_BK: Tensor) -> Tensor:
        keep_B = mask_BK.any(-1)
        for term in self.terms.values():
            of_term_B = term.loss.keep(scores_BK, bins_BK, mask_BK)
            check_keep(f"{type(term.loss).__name__}.keep", of_term_B, len(mask_BK))
            keep_B = keep_B & of_term_B
        return keep_B

    def implicit_reward(self, inputs: LossInputs) -> Tensor:
        """Of the first term."""
        return next(iter(self.terms.values())).loss.implicit_reward(inputs)

    def per_set(self, inputs: LossInputs) -> Tensor:
        return sum(
            (self.terms[name].weight * loss_B for name, loss_B in self._values(inputs).items()),
            start=torch.zeros_like(inputs.policy_logps_BK[:, 0]),
        )

    def extra_metrics(self, inputs: LossInputs) -> dict[str, Tensor]:
        metrics = {f"term_{name}": loss_B for name, loss_B in self._values(inputs).items()}
        for name, term in self.terms.items():
            metrics |= {f"{name}_{key}": values for key, values in term.loss.extra_metrics(inputs).items()}
        return metrics

    def _values(self, inputs: LossInputs) -> Mapping[str, Tensor]:
        values = {}
        for name, term in self.terms.items():
            values[name] = term.loss.per_set(inputs)
            check_values(f"{type(term.loss).__name__}.per_set", values[name], len(inputs.mask_BK))
        return values


def _names(shapes: frozenset[Shape]) -> str:
    return ", ".join(sorted(shape.value for shape in shapes))
