"""What a benchmark is: a measure with questions of its own, which the policy answers. No torch."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from mpo.evaluate.base import Measure
from mpo.evaluate.questions import Decoding, Question


@dataclass(frozen=True)
class Benchmark(Measure):
    """A measure whose questions come from a file that the user gives.

    The pipeline reads the questions before anything is trained, has the trained policy answer them with the run's
    sampler, and gives the answers as ``Evidence.answers``: for each question in order and each seed one. A question
    with a temperature of its own is answered at that, with the first decoding's other values. Errors name options as
    ``measure.OPTION``; the pipeline puts the measure's configuration key there.
    """

    needs_answers: ClassVar[bool] = True
    resumable: ClassVar[bool] = True

    @property
    def against_start(self) -> bool:
        """Whether the starting policy answers too, for ``Evidence.start_answers``."""
        return False

    @abstractmethod
    def questions(self) -> list[Question]:
        """The questions; raises ConfigError or DataError where the file is not there or cannot be used."""

    @abstractmethod
    def decodings(self) -> list[Decoding]:
        """How they are answered, each at another temperature; raises ConfigError for what is out of range."""
