"""What was wrong with the sets of one source: counted, the first kept, and whether it stops the run."""

from __future__ import annotations

from mpo.data.problems import Problem, ProblemCounts, Reason
from mpo.errors import DataError
from mpo.stages.nodes import data

_SHOWN = 20
_NO_SIGNAL = (Reason.ONE_RESPONSE, Reason.EQUAL_SCORES)


class Findings:
    """Problems of one read: counted, the first few kept, unusable sets apart from merely odd ones.

    Args:
        fatal: reasons of warnings whose sets cannot be used.
        part: of a mixture, whose name the reasons then carry; empty for a source that is whole.
    """

    def __init__(self, fatal: set[Reason], part: str = "") -> None:
        self.counts = ProblemCounts()
        self.first: list[Problem] = []
        self.first_without_signal: Problem | None = None
        self.fatal_ids: set[str] = set()
        self._fatal = fatal
        self.part = part

    def __call__(self, problem: Problem) -> None:
        self.counts(problem)
        unusable = problem.severity == "error" or problem.reason_code in self._fatal
        if unusable and problem.severity == "warning":
            self.fatal_ids.add(problem.id)
        if unusable and len(self.first) < _SHOWN:
            self.first.append(problem)
        if problem.reason_code in _NO_SIGNAL and self.first_without_signal is None:
            self.first_without_signal = problem

    @property
    def shown(self) -> list[str]:
        """The first problems, and the first of each kind of warning."""
        warnings = [one for one in self.counts.first.values() if one.severity == "warning" and one not in self.first]
        return [str(problem) for problem in (*self.first, *warnings)]

    @property
    def skipped(self) -> dict[str, int]:
        """Sets that cannot be used, by reason."""
        return {self.label(reason): count for reason, count in self._unusable.items()}

    @property
    def warned(self) -> dict[str, int]:
        """Warnings but those about a set's signal: the partition knows whether it matters."""
        about_signal = (*_NO_SIGNAL, Reason.NO_SCORE)
        return {self.label(reason): n for reason, n in self.counts.warnings.items() if reason not in about_signal}

    def label(self, reason: str) -> str:
        """The reason, and of which part."""
        return f"{reason} ({self.part})" if self.part else str(reason)

    def check(self, usable: int, config: data.Config) -> None:
        """Raise DataError where too many sets cannot be used, or a signal is needed and all ``usable`` ones lack it."""
        skipped = sum(self._unusable.values())
        reasons = ", ".join(f"{reason} {count}" for reason, count in sorted(self._unusable.items()))
        if skipped and (not usable or skipped > config.max_skipped_share * (skipped + usable)):
            worst = self.first[0]
            remedy = "fix the data, or raise data.max_skipped_share" if usable else "fix the data"
            if worst.reason_code is Reason.NO_SCORE:
                key = f"data.source.parts.{self.part}" if self.part else "data"
                remedy += f"; {key}.score_field names another key of the scores, loss=sft needs none"
            raise DataError(
                f"{worst.reason_code}: {worst.message} ({skipped} of {skipped + usable} sets{self._of_part} cannot be "
                f"used: {reasons})",
                worst.where,
                remedy,
            )
        first = self.first_without_signal
        count = sum(self.counts.warnings[reason] for reason in _NO_SIGNAL)
        if config.contrasts and first is not None and count >= usable:
            raise DataError(
                f"{first.reason_code}: {first.message} (so with all {usable} sets{self._of_part})",
                first.where,
                "give sets with at least two responses of different scores, or use loss=sft",
            )

    @property
    def _of_part(self) -> str:
        return f" of part '{self.part}'" if self.part else ""

    @property
    def _unusable(self) -> dict[str, int]:
        fatal = {reason: n for reason, n in self.counts.warnings.items() if reason in self._fatal}
        return {**self.counts.errors, **fatal}
