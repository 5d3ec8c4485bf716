"""How a stage's process reports to the run why it ended: through memory, because the disk may be what failed.

Beside that a file in the stage's folder tells the other processes, those on other machines too, that one has failed.
"""

from __future__ import annotations

import contextlib
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from mpo.cache.artifacts import write_json
from mpo.errors import ConfigError, DataError, ProcessError, StageFailed, UserError

_LIMIT = 60_000
"""Most characters of a traceback that are kept, its end."""
_KINDS = {cls.__name__: cls for cls in (UserError, ConfigError, DataError, ProcessError)}
_BUG = "bug"


@dataclass(frozen=True)
class Report:
    """A user's mistake or a failure of the surroundings in its parts, or a bug's ``traceback``."""

    kind: str
    what: str = ""
    where: str = ""
    remedy: str = ""
    traceback: str = ""

    @classmethod
    def of_mistake(cls, error: UserError) -> Report:
        """Of an error that is one line."""
        kind = next(known.__name__ for known in type(error).__mro__ if known.__name__ in _KINDS)
        return cls(kind, error.what, error.where, error.remedy)

    @classmethod
    def of_bug(cls, traceback: str) -> Report:
        """Of any other."""
        return cls(_BUG, traceback=traceback[-_LIMIT:])

    @property
    def is_bug(self) -> bool:
        """Whether it is shown with a traceback."""
        return self.kind == _BUG

    def error(self, log: Path) -> UserError | StageFailed:
        """The exception for the run to raise; ``log`` is where a bug's log lies."""
        if self.is_bug:
            return StageFailed(f"{self.traceback}log: {log}")
        return _KINDS[self.kind](self.what, self.where, self.remedy)


class ReportBox:
    """What the processes of one stage report, held in memory.

    Attributes:
        address: for :func:`send`, in any process of this machine.
    """

    def __init__(self) -> None:
        self._descriptor = os.memfd_create("mpo-reports")
        self.address = f"/proc/{os.getpid()}/fd/{self._descriptor}"

    def newest(self, file: Path) -> Report | None:
        """The report to raise, a mistake before a bug, which may be its consequence; ``file`` is other machines'."""
        size = os.fstat(self._descriptor).st_size
        lines = os.pread(self._descriptor, size, 0).splitlines()
        with contextlib.suppress(OSError):
            lines.append(file.read_bytes())
        found = [report for line in lines if (report := _parsed(line)) is not None]
        return next((report for report in found if not report.is_bug), found[0] if found else None)

    def close(self) -> None:
        """Forget them."""
        os.close(self._descriptor)

    def __enter__(self) -> ReportBox:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def send(report: Report, address: str, file: Path) -> None:
    """Report to the box at ``address``, and in ``file``, which is left empty where the disk takes no more."""
    with contextlib.suppress(OSError):
        descriptor = os.open(address, os.O_WRONLY | os.O_APPEND)
        os.write(descriptor, json.dumps(asdict(report)).encode() + b"\n")  # at once, hence not between others' bytes
        os.close(descriptor)
    if report.is_bug and file.exists():  # another process's mistake may be why this one broke
        return
    try:
        write_json(file, asdict(report))
    except OSError:
        with contextlib.suppress(OSError):
            file.touch()


def _parsed(line: bytes) -> Report | None:
    try:
        return Report(**json.loads(line))
    except (ValueError, TypeError):
        return None
