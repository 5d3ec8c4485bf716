"""The command line, in processes of its own, on a world so small that every stage takes about a second."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.end_to_end.runs import ROOT, TIMEOUT_S, Outcome, Run, Server

SHARED = ROOT / "../shared"
SMALLEST = (
    "data.source.demonstrations=400",
    "data.source.prompts=16",
    "data.source.heldout_prompts=8",
    "model.scratch.sft.max_steps=30",
    "train.max_steps=4",
    "train.global_batch=8",
    "train.micro_batch=4",
    "sample.n=4",
    "evaluate.samples=2",
    "evaluate.temperatures=[1.0]",
    "launcher.threads=1",
)
"""Overrides that make the testbed tiny; one thread, because the sums of several may differ in their last bit."""


@dataclass
class CommandLine:
    """Starts ``python -m mpo.run`` in ``home``, outside the checkout, with a cache and a home folder of its own."""

    home: Path
    cache: Path
    environment: dict[str, str] = field(default_factory=dict)
    server: Server | None = None
    count: int = 0

    def variables(self) -> dict[str, str]:
        """The environment of a user without settings for W&B, Hydra or a hub."""
        left_out = ("WANDB_", "HYDRA_", "MPO_", "PYTHONDONTWRITEBYTECODE")
        kept = {key: value for key, value in os.environ.items() if not key.startswith(left_out)}
        return kept | {
            "HOME": str(self.home),
            "NETRC": str(self.home / ".netrc"),
            "PYTHONPATH": str(ROOT),
            "MPO_CACHE": str(self.cache),
            "OMP_NUM_THREADS": "1",
            "HF_HUB_OFFLINE": "1",
            "MPLCONFIGDIR": str(self.cache.parent / "matplotlib"),
            "WANDB_MODE": "disabled",  # it takes seconds of every run; what it logs has tests of its own
            **self.environment,
        }

    def next_folder(self, arguments: Sequence[str]) -> tuple[Path, list[str]]:
        """A folder for the next run, and its arguments with that folder among them."""
        self.count += 1
        folder = self.home / f"run{self.count}"
        several = any(argument in ("-m", "--multirun") for argument in arguments)
        return folder, [*arguments, *(() if several else (f"hydra.run.dir={folder}",))]

    def start(self, *arguments: str) -> tuple[subprocess.Popen[str], Path]:
        """Start the command, a new interpreter, in a process group of its own; returns it and the run's folder."""
        folder, own = self.next_folder(arguments)
        process = subprocess.Popen(
            [sys.executable, "-m", "mpo.run", *own],
            cwd=self.home,
            env=self.variables(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        return process, folder

    def fork(self, *arguments: str) -> Run:
        """Start the command in a fork of a process that has imported everything."""
        assert self.server is not None
        return self.server.start(self, arguments)

    def __call__(self, *arguments: str, code: int | None = 0, fork: bool = True) -> Outcome:
        """Run the command to its end; ``code`` is the exit status that it must have.

        Args:
            fork: in a fork of a process that has imported everything, which saves most of its time; else in a new
                interpreter, as users do.
        """
        began = time.monotonic()
        if fork and self.server is not None:
            outcome = self.fork(*arguments).outcome()
        else:
            process, folder = self.start(*arguments)
            try:
                out, err = process.communicate(timeout=TIMEOUT_S)
            except BaseException:  # out of time, or the test was told to stop: leave nothing behind
                os.killpg(process.pid, signal.SIGKILL)
                raise
            outcome = Outcome(process.returncode, out, err, folder, time.monotonic() - began)
        assert code is None or outcome.code == code, (
            f"status {outcome.code} of {arguments}\n{outcome.out}\n{outcome.err}"
        )
        return outcome

    def smallest(self, *arguments: str) -> tuple[str, ...]:
        """Arguments of a run in the smallest testbed; a later value replaces an earlier one of the same key."""
        chosen = {argument.partition("=")[0]: argument for argument in (*SMALLEST, *arguments)}
        return tuple(chosen.values())

    def testbed(self, *arguments: str, code: int | None = 0, fork: bool = True) -> Outcome:
        """The command on the smallest testbed."""
        return self(*self.smallest(*arguments), code=code, fork=fork)


MakeCommandLine = Callable[..., CommandLine]


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """What commands are forked from; it begins to import when it is first needed."""
    home = tmp_path_factory.mktemp("server")
    made = Server(CommandLine(home, home / "cache").variables())
    yield made
    made.close()


@pytest.fixture(scope="session")
def command_lines(tmp_path_factory: pytest.TempPathFactory, server: Server) -> MakeCommandLine:
    """Makes command lines; ``cache`` None is a cache of its own."""

    def make(cache: Path | None = None, **environment: str) -> CommandLine:
        home = tmp_path_factory.mktemp("home")
        return CommandLine(home, cache or home / "cache", environment, server)

    return make


@pytest.fixture(scope="session")
def empty_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """That of :func:`first_run`, whichever test is the session's first."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def first_run(command_lines: MakeCommandLine, empty_cache: Path) -> Outcome:
    """The main job, W-MPO, from nothing."""
    return command_lines(empty_cache).testbed()


@pytest.fixture(scope="session")
def shared_cache(empty_cache: Path, first_run: Outcome) -> Path:
    """One cache for the session, so that the starting policy is made once."""
    return empty_cache


@pytest.fixture
def mpo(command_lines: MakeCommandLine, shared_cache: Path) -> CommandLine:
    """A command line on the session's cache."""
    return command_lines(shared_cache)


@pytest.fixture
def shared_data() -> Iterator[Path]:
    """The folder of real data beside the checkout; tests skip where it is absent."""
    if not (SHARED / "data").is_dir():
        pytest.skip("no ../shared/data beside the checkout")
    yield SHARED / "data"
