"""The store: a folder with one file a run, which several processes may write and two machines may merge. No torch."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from mpo.cache.artifacts import write_bytes
from mpo.errors import DataError
from mpo.evaluate.records import PromptValues
from mpo.report.records import RunReport
from mpo.results.files import SUFFIX, Newer, read_prompt_values, read_run, write_run
from mpo.results.records import Row, Run

VARIABLE = "MPO_RESULTS"


def default_folder() -> Path:
    """Where runs write unless their ``results`` says otherwise, as in ``conf/config.yaml``."""
    home = os.environ.get("HOME", ".")
    cache = os.environ.get("MPO_CACHE", f"{home}/.cache/mpo")
    return Path(os.environ.get(VARIABLE, f"{cache}/results")).expanduser()


@dataclass(frozen=True)
class Merged:
    """What a merge did: runs that are new here, that were here already, and files that could not be read."""

    new: int
    known: int
    problems: tuple[str, ...]


class Results:
    """A store of results; the folder need not exist before a run is added.

    Files are read once, when they are first asked for: a store that others write is opened again to see more.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._read: tuple[dict[str, Path], list[Run], list[Row], list[str]] | None = None

    @classmethod
    def open(cls, path: Path | str) -> Results:
        """The store in the folder ``path``."""
        return cls(Path(path).expanduser())

    def runs(self) -> list[Run]:
        """Every run, the oldest first.

        Raises:
            DataError: a file is of a newer schema than this version's.
        """
        return list(self._loaded()[1])

    def rows(self) -> list[Row]:
        """Every estimate of every run, in the order of the runs; raises as :meth:`runs`."""
        return list(self._loaded()[2])

    @property
    def problems(self) -> list[str]:
        """A line for each file that is left out: damaged, not a run's, or a copy of another."""
        return list(self._loaded()[3])

    def find(self, run_key: str) -> list[Run]:
        """Runs of a configuration, the newest first; see :func:`mpo.results.run_key`."""
        return [run for run in reversed(self.runs()) if run.run_key == run_key]

    def run(self, name: str) -> Run:
        """The run with this id, or beginning of it, or this name.

        Raises:
            DataError: there is none, or several.
        """
        found = [run for run in self.runs() if name and (run.id.startswith(name) or run.name == name)]
        if not found:
            raise DataError(f"no run has the id or name '{name}'", str(self.folder), "see python -m mpo.results list")
        if len(found) > 1:
            ids = ", ".join(run.id for run in found[:5])
            raise DataError(f"'{name}' is {len(found)} runs: {ids}{', …' if found[5:] else ''}", "", "give one's id")
        return found[0]

    def all_prompt_values(self, run: Run | str) -> list[PromptValues]:
        """The values behind a run's estimates, of those that have them; raises DataError for an id that is not here."""
        name = run if isinstance(run, str) else run.id
        files = self._loaded()[0]
        if name not in files:
            raise DataError(f"no run has the id '{name}'", str(self.folder), "see python -m mpo.results list")
        return read_prompt_values(files[name])

    def prompt_values(
        self,
        run: Run | str,
        metric: str,
        temperature: float | None = None,
        *,
        split: str = "heldout",
        judge: str | None = None,
        round: int | None = None,
    ) -> dict[str, float]:
        """A run's values of one estimate by prompt; empty where it has none.

        Args:
            run: or its id.
            temperature: None for estimates without samples.
            judge: None for any.
            round: None for the last.

        Raises:
            DataError: the run is not here, or several judges have such an estimate.
        """
        found = [
            each
            for each in self.all_prompt_values(run)
            if (each.metric, each.temperature, each.split) == (metric, temperature, split)
            and judge in (None, each.judge)
            and round in (None, each.round)
        ]
        last = max((each.round for each in found if each.round is not None), default=None)
        found = [each for each in found if each.round == last]
        if len(found) > 1:
            judges = ", ".join(str(each.judge) for each in found)
            raise DataError(f"{metric} was judged by {judges}", "", "say which judge")
        return dict(zip(found[0].prompts, found[0].values, strict=True)) if found else {}

    def add(self, report: RunReport) -> bool:
        """Record a finished run; False where it is here already, with the same code and the same results."""
        run = Run.of(report)
        path = self.path(run)
        if _readable(path):
            return False
        write_run(path, run, [Row.of(run, each) for each in report.evaluation], report.by_prompt)
        self._read = None
        return True

    def path(self, run: Run) -> Path:
        """Where a run's file is written."""
        return self.folder / f"{run.id}{SUFFIX}"

    def merge(self, other: Results) -> Merged:
        """Copy what ``other`` has and this store has not; raises DataError for runs of a newer schema, copying none."""
        files, runs, _, problems = other._loaded()
        new = 0
        for run in runs:
            if not _readable(self.path(run)):
                write_bytes(self.path(run), files[run.id].read_bytes())
                new += 1
        self._read = None
        return Merged(new, len(runs) - new, tuple(problems))

    def _loaded(self) -> tuple[dict[str, Path], list[Run], list[Row], list[str]]:
        if self._read is None:
            files: dict[str, Path] = {}
            found: list[tuple[Run, list[Row]]] = []
            problems = []
            names = sorted(self.folder.glob(f"*{SUFFIX}")) if self.folder.is_dir() else []
            for path in names:
                try:
                    run, rows = read_run(path)
                except Newer:
                    raise
                except DataError as error:
                    problems.append(str(error))
                    continue
                if run.id in files:
                    problems.append(f"{path}: a copy of {files[run.id].name}")
                    continue
                files[run.id] = path
                found.append((run, rows))
            found.sort(key=lambda each: (each[0].created, each[0].id))
            self._read = files, [run for run, _ in found], [row for _, rows in found for row in rows], problems
        return self._read


def _readable(path: Path) -> bool:
    """Whether a whole file of a run is there; one of a newer schema is."""
    try:
        read_run(path)
    except Newer:
        return True
    except DataError:
        return False
    return True
