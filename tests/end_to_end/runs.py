"""Starts runs in forks of one process that has imported everything (server.py)."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from mpo.evaluate.records import Estimate
from mpo.report.records import RunReport

if TYPE_CHECKING:
    from tests.end_to_end.conftest import CommandLine

ROOT = Path(__file__).parents[2]
TIMEOUT_S = 300


@dataclass(frozen=True)
class Outcome:
    """What a finished command left behind; ``folder`` is the run's own (Hydra's)."""

    code: int
    out: str
    err: str
    folder: Path
    seconds: float

    @property
    def planned(self) -> dict[str, str]:
        """What the printed plan says of each stage: ``build`` or ``cached``."""
        rows = (line.split() for line in (self.err + self.out).splitlines())  # of a dry run it is the output
        return {row[0]: row[1] for row in rows if len(row) > 2 and row[1] in ("build", "cached")}

    @property
    def started(self) -> list[str]:
        """Stages that were built, in order."""
        return [line.removesuffix(": started") for line in self.err.splitlines() if line.endswith(": started")]

    @property
    def mistakes(self) -> list[str]:
        """Lines that tell a mistake."""
        return [line for line in self.err.splitlines() if line.startswith("mpo: error:")]

    @property
    def result(self) -> dict[str, Any]:
        """The run's record."""
        loaded: dict[str, Any] = json.loads((self.folder / "result.json").read_text())
        return loaded

    @property
    def measures(self) -> dict[str, Estimate]:
        """Its estimates by what people call them."""
        return RunReport.load(self.folder).measures

    @property
    def metrics(self) -> list[dict[str, Any]]:
        """Records of ``metrics.jsonl``."""
        return [json.loads(line) for line in (self.folder / "metrics.jsonl").read_text().splitlines()]

    @property
    def weights(self) -> bytes:
        """The exported model's file, byte by byte."""
        return (self.folder / "policy" / "model.safetensors").read_bytes()


@dataclass
class Run:
    """A started run; it leads a session of its own, so ``pid`` names its process, group and session."""

    pid: int
    server: Server
    home: Path
    folder: Path
    began: float = field(default_factory=time.monotonic)
    status: int | None = None

    @property
    def err(self) -> str:
        return (self.home / "err").read_text()

    def alive(self) -> bool:
        """Whether the run's own process has not ended; an ended one waits for the server, its parent, at most."""
        try:
            return psutil.Process(self.pid).status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return False

    def wait(self) -> int:
        """Its exit status once it has ended, negative for a signal; it is killed if it does not end in time."""
        if self.status is None:
            deadline = time.monotonic() + TIMEOUT_S
            try:
                while self.alive():
                    assert time.monotonic() < deadline, f"still running after {TIMEOUT_S} s\n{self.err}"
                    time.sleep(0.01)
            except BaseException:  # out of time, or the test was told to stop: leave nothing behind
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(self.pid, signal.SIGKILL)
                self.server.read()
                raise
            self.status = self.server.read()
        return self.status

    def members(self) -> list[psutil.Process]:
        """Every process of its session that is alive."""
        found = []
        for process in psutil.process_iter():
            try:
                if os.getsid(process.pid) == self.pid and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
            except (psutil.NoSuchProcess, ProcessLookupError):
                continue
        return found

    def wait_until_gone(self, seconds: float) -> None:
        """Fail unless every process of the run ends in time."""
        deadline = time.monotonic() + seconds
        left = self.members()
        while left and time.monotonic() < deadline:
            time.sleep(0.05)
            left = self.members()
        assert [str(process) for process in left] == []

    def outcome(self) -> Outcome:
        """Wait for its end and take what it left behind."""
        code = self.wait()
        return Outcome(code, (self.home / "out").read_text(), self.err, self.folder, time.monotonic() - self.began)


class Server:
    """The process that forks; one run at a time."""

    def __init__(self, variables: dict[str, str]) -> None:
        self._variables = variables
        self._process: subprocess.Popen[str] | None = None

    def _running(self) -> subprocess.Popen[str]:
        if self._process is None:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.end_to_end.server"],
                cwd=ROOT,
                env=self._variables,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                start_new_session=True,
            )
        return self._process

    def start(self, command_line: CommandLine, arguments: Sequence[str]) -> Run:
        """Start the command as ``command_line`` would."""
        home = command_line.home
        folder, own = command_line.next_folder(arguments)
        command = {
            "arguments": own,
            "folder": str(home),
            "variables": command_line.variables(),
            "out": str(home / "out"),
            "err": str(home / "err"),
        }
        (home / "err").write_text("")  # what the run before it wrote is not its own
        process = self._running()
        assert process.stdin is not None
        process.stdin.write(json.dumps(command) + "\n")
        process.stdin.flush()
        return Run(self.read(), self, home, folder)

    def read(self) -> int:
        process = self._running()
        assert process.stdout is not None
        return int(process.stdout.readline())

    def close(self) -> None:
        if self._process is not None:
            assert self._process.stdin is not None
            self._process.stdin.close()
            self._process.wait(timeout=TIMEOUT_S)
