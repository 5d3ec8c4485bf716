"""How many trials the campaigns make, and the counts that they end with."""

from __future__ import annotations

import os
from collections import Counter

import pytest

from tests.end_to_end.campaigns.prepared import RUNS, VLLM, WITH_VLLM, Finished, finish
from tests.end_to_end.conftest import MakeCommandLine
from tests.end_to_end.runs import Server

SEED = int(os.environ.get("MPO_CAMPAIGN_SEED", "0"))
COUNTS = pytest.StashKey[dict[str, Counter[str]]]()


def trials(number: int) -> list[object]:
    """Seeds of ``number`` trials (MPO_CAMPAIGN_TRIALS says otherwise)."""
    number = int(os.environ.get("MPO_CAMPAIGN_TRIALS", str(number)))
    return [pytest.param(SEED + trial, marks=pytest.mark.slow) for trial in range(number)]


@pytest.fixture(scope="session")
def finished(server: Server, command_lines: MakeCommandLine) -> dict[str, Finished]:
    """Undisturbed runs by name, each made when it is first asked for."""

    class Made(dict[str, Finished]):
        def __missing__(self, name: str) -> Finished:
            self[name] = finish(server, command_lines, *(WITH_VLLM if name == VLLM else RUNS[name]))
            return self[name]

    return Made()


@pytest.fixture
def counts(request: pytest.FixtureRequest) -> Counter[str]:
    """Counts of the requesting module, shown at the end of the session."""
    by_module = request.config.stash.setdefault(COUNTS, {})
    return by_module.setdefault(request.module.__name__.rpartition(".")[2], Counter())


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    for module, found in config.stash.get(COUNTS, {}).items():
        terminalreporter.write_line(f"{module}: " + ", ".join(f"{name} {count}" for name, count in found.items()))
