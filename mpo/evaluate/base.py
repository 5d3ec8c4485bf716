"""What a measure is. No torch: the command line checks measures before anything is loaded."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from mpo.evaluate.records import Findings
from mpo.types import ResponseSet

if TYPE_CHECKING:
    from mpo.evaluate.heldout import HeldOut

START = "starting policy"


@dataclass(frozen=True)
class Samples:
    """Responses to the same held-out prompts, in the same order, at one temperature."""

    temperature: float
    start: list[ResponseSet]
    policy: list[ResponseSet]


@dataclass(frozen=True)
class Evidence:
    """What a measure is given, as far as it needs it.

    Attributes:
        samples: by the starting policy and by the trained one.
        score: name of their true rewards (``Response.score_by``); None where the data does not know them.
        heldout: the policies themselves and held-out sets; None where there are none.
        seed: of the run and round.
        on_progress: called with how much is done, how much there is, and of what.
    """

    samples: tuple[Samples, ...]
    score: str | None
    heldout: HeldOut | None
    seed: int
    on_progress: Callable[[int, int, str], None]


class Measure(ABC):
    """Judges a trained policy. A frozen dataclass whose fields are its options below ``evaluate.measures``."""

    needs_models: ClassVar[bool] = False
    """Whether it forwards held-out sets through the policies."""
    needs_samples: ClassVar[bool] = False
    """Whether it reads samples at ``evaluate.temperatures``."""
    needs_truth: ClassVar[bool] = False
    """Whether samples must have true rewards; it is left out where the data does not know them."""
    immediate: ClassVar[bool] = False
    """Whether it takes no time, so that it needs no process of its own."""

    def check(self) -> None:  # noqa: B027  # many have nothing to look at
        """Raise ConfigError for what is wrong already before anything is trained. Loads no model, imports no torch."""

    @abstractmethod
    def measure(self, evidence: Evidence) -> Findings:
        """What it finds; the same for the same evidence."""
