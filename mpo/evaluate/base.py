"""What a measure is. No torch: the command line checks measures before anything is loaded."""

from __future__ import annotations

import contextlib
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from mpo.errors import UserError
from mpo.evaluate.questions import Answer
from mpo.evaluate.records import Findings, PolicyResult
from mpo.types import ResponseSet

if TYPE_CHECKING:
    from mpo.evaluate.heldout import HeldOut

START = "starting policy"
OPTION = re.compile(r"\bmeasure(?=[.=]|$)")
"""How a measure names its own configuration key, which it does not know."""


@dataclass(frozen=True)
class Samples:
    """Responses to the same held-out prompts, in the same order, at one temperature."""

    temperature: float
    start: list[ResponseSet]
    policy: list[ResponseSet]


@dataclass(frozen=True)
class Results:
    """What :meth:`mpo.evaluate.policy_measure.PolicyMeasure.measure_policy` has found on each policy by itself."""

    start: list[PolicyResult]
    policy: list[PolicyResult]


@dataclass(frozen=True)
class Evidence:
    """What a measure is given, as far as it needs it.

    Attributes:
        samples: by the starting policy and by the trained one.
        score: name of their true rewards (``Response.score_by``); None where the data does not know them.
        heldout: the policies themselves and held-out sets; None where there are none.
        seed: of the run and round.
        on_progress: called with how much is done, how much there is, and of what.
        answers: the trained policy's, to the questions of a :class:`mpo.evaluate.benchmark.Benchmark`.
        start_answers: the starting policy's, where the benchmark asks for them.
        output: folder for files beside the estimates. What a :attr:`Measure.resumable` one has left there when it was
            stopped is there again.
        warn: has the run's console say a line.
        results: of the two policies, each by itself.
        verdicts: folder of the judges' verdicts that runs keep by their content; None: none are kept.
        allow_targets: prefixes of classes that nodes within a measure may name beside this package's.
    """

    samples: tuple[Samples, ...]
    score: str | None
    heldout: HeldOut | None
    seed: int
    on_progress: Callable[[int, int, str], None]
    answers: tuple[Answer, ...] = ()
    start_answers: tuple[Answer, ...] = ()
    output: Path | None = None
    warn: Callable[[str], None] = lambda text: None
    results: Results | None = None
    verdicts: Path | None = None
    allow_targets: tuple[str, ...] = ()


class Measure(ABC):
    """Judges a trained policy. A frozen dataclass whose fields are its options below ``evaluate.measures``."""

    needs_models: ClassVar[bool] = False
    """Whether it forwards held-out sets through the policies."""
    needs_samples: ClassVar[bool] = False
    """Whether it reads samples at ``evaluate.temperatures``."""
    needs_truth: ClassVar[bool] = False
    """Whether samples must have true rewards; it is left out where the data does not know them."""
    needs_answers: ClassVar[bool] = False
    """Whether it has questions of its own, see :class:`mpo.evaluate.benchmark.Benchmark`."""
    immediate: ClassVar[bool] = False
    """Whether it takes no time, so that it needs no process of its own."""
    resumable: ClassVar[bool] = False
    """Whether it goes on from what it has left in ``Evidence.output`` when it was stopped."""
    files: ClassVar[frozenset[str]] = frozenset()
    """Options that name files or folders: their content counts, not where they lie."""

    @property
    def models(self) -> dict[str, tuple[str, str | None]]:
        """Models that nodes within it name, folders or hub names with revisions, by names of its own."""
        return {}

    @property
    def change_nothing(self) -> frozenset[str]:
        """Options that cannot change what it finds, such as a server's address; those of nodes within it dotted, as
        ``judges.mine.urls``. A class variable does as well."""
        return frozenset()

    def check(self) -> None:  # noqa: B027  # many have nothing to look at
        """Raise ConfigError for what is wrong already before anything is trained. Loads no model, imports no torch."""

    @abstractmethod
    def measure(self, evidence: Evidence) -> Findings:
        """What it finds; the same for the same evidence."""


@contextlib.contextmanager
def errors_of(key: str) -> Iterator[None]:
    """A measure names its options ``measure.OPTION``: errors name them below ``key`` instead."""
    try:
        yield
    except UserError as error:
        where, remedy = (OPTION.sub(key, text) for text in (error.where, error.remedy))
        raise type(error)(error.what, where, remedy) from error
