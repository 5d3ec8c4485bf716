"""A sweep's folder: which settings were begun, which members are done, and who works on what. No torch.

``sweep.json`` lists the settings; a member is done when its folder holds ``result.json``. A setting is worked on while
somebody holds its lock, which the kernel drops with its holder, so a killed sweep leaves nothing to clear away and
several processes can share a folder.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from mpo.cache.locks import is_locked, locked
from mpo.errors import ConfigError
from mpo.report.records import RESULT_FILE, RunReport
from mpo.report.sweep_record import SWEEP_FILE, Outcome, SweepRecord, outcomes

LOCKS = "locks"
WHERE = "hydra.sweep.dir"

Propose = Callable[[list[Outcome]], tuple[str, ...] | None]
"""The next setting after those that were begun, or None."""
StopBehind = Callable[[list[RunReport]], list[float]]
"""Given the members that are done, ``train.stop_behind`` of the next ones."""


class SweepFolder:
    """The folder ``root`` of the sweep that ``wanted`` describes; :meth:`check` comes first."""

    def __init__(self, root: Path, wanted: SweepRecord) -> None:
        self.root = root
        self.record = wanted
        self._runs: dict[str, RunReport] = {}
        self._worked_on: set[int] = set()
        """Settings that this process has taken: one that failed is not tried twice."""

    def check(self) -> None:
        """Make the folder, or look whether it is this sweep's; raises ConfigError if it holds another one, or other
        runs."""
        (self.root / LOCKS).mkdir(parents=True, exist_ok=True)
        with locked(self.root / LOCKS / "sweep"):
            self._read()
            self.record.save(self.root)

    def take(self, most: int, propose: Propose, stop_behind: StopBehind, held: ExitStack) -> list[int]:
        """Numbers of up to ``most`` settings to work on: those that a killed sweep left first, then new ones.

        ``held`` keeps their locks.
        """
        taken: list[int] = []
        with locked(self.root / LOCKS / "sweep"):
            self._read()
            found = self.outcomes()
            while len(taken) < most:
                number = next((each.number for each in found if self._free(each)), None)
                if number is None:
                    setting = propose(found)
                    if setting is None:
                        break
                    self.record = self.record.with_setting(setting, stop_behind(list(self._runs.values())))
                    found.append(Outcome(len(found), setting, ()))
                    number = found[-1].number
                held.enter_context(locked(self._lock(number)))
                self._worked_on.add(number)
                taken.append(number)
            self.record.save(self.root)
        return taken

    def open_members(self, number: int) -> list[tuple[str, str]]:
        """Folder names and seeds of a setting's members that are not done."""
        members = zip(self.record.members(number), self.record.seeds, strict=True)
        return [(name, seed) for name, seed in members if not self.is_done(name)]

    def is_done(self, name: str) -> bool:
        """Whether the member in the folder ``name`` has its result."""
        return name in self._runs or (self.root / name / RESULT_FILE).is_file()

    def is_worked_on(self, number: int) -> bool:
        """Whether some process holds the setting's lock."""
        return is_locked(self._lock(number))

    def gave_up(self, number: int) -> bool:
        """Whether this process has tried the setting."""
        return number in self._worked_on and not self.is_worked_on(number)

    def outcomes(self) -> list[Outcome]:
        """What the settings that were begun came to so far."""
        for number in range(len(self.record.settings)):
            for name in self.record.members(number):
                if name not in self._runs and self.is_done(name):
                    self._runs[name] = RunReport.load(self.root / name)
        return outcomes(self.record, self._runs)

    def runs(self) -> list[RunReport]:
        """Records of the members that are done."""
        self.outcomes()
        return list(self._runs.values())

    def _free(self, outcome: Outcome) -> bool:
        number = outcome.number
        if number in self._worked_on or not self.open_members(number):
            return False
        return not self.is_worked_on(number)

    def _lock(self, number: int) -> Path:
        return self.root / LOCKS / str(number)

    def _read(self) -> None:
        """Take over the settings that other processes, or earlier ones, have begun."""
        there = SweepRecord.load(self.root)
        if there is None:
            if any(self.root.glob(f"*/{RESULT_FILE}")):
                raise ConfigError(f"'{self.root}' holds other runs", WHERE, "name another folder")
            return
        wanted, holds = set(self.record.space), set(there.space)
        if wanted != holds or self.record.seeds != there.seeds:
            other = sorted(holds - wanted) or sorted(wanted - holds) or ["seeds"]
            what = f"'{self.root}' holds another sweep: {SWEEP_FILE} differs in '{other[0]}'"
            raise ConfigError(what, WHERE, "name another folder, or give the same command")
        self.record = dataclasses.replace(self.record, settings=there.settings, stop_behind=there.stop_behind)
