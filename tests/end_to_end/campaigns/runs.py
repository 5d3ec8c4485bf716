"""Starts runs in forks of one process that has imported everything (server.py)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from tests.end_to_end.conftest import ROOT, TIMEOUT_S, CommandLine, Outcome


@dataclass
class Run:
    """A started run; it leads a session of its own, so ``pid`` names its process, group and session."""

    pid: int
    server: Server
    home: Path
    folder: Path
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
        """Its exit status once it has ended, negative for a signal."""
        if self.status is None:
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
        while self.members() and time.monotonic() < deadline:
            time.sleep(0.05)
        assert [(process.pid, process.cmdline()) for process in self.members()] == []

    def outcome(self) -> Outcome:
        """Wait for its end and take what it left behind."""
        code = self.wait()
        return Outcome(code, (self.home / "out").read_text(), self.err, self.folder, 0.0)


class Server:
    """The process that forks; one run at a time."""

    def __init__(self, variables: dict[str, str]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.end_to_end.campaigns.server"],
            cwd=ROOT,
            env=variables,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def start(self, command_line: CommandLine, arguments: Sequence[str]) -> Run:
        """Start the command as ``command_line`` would."""
        command_line.count += 1
        home = command_line.home
        folder = home / f"run{command_line.count}"
        command = {
            "arguments": [*arguments, f"hydra.run.dir={folder}"],
            "folder": str(home),
            "variables": command_line.variables(),
            "out": str(home / "out"),
            "err": str(home / "err"),
        }
        (home / "err").write_text("")  # what the run before it wrote is not its own
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(command) + "\n")
        self._process.stdin.flush()
        return Run(self.read(), self, home, folder)

    def read(self) -> int:
        assert self._process.stdout is not None
        return int(self._process.stdout.readline())

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(timeout=TIMEOUT_S)
