"""Cards in name only, each in a process of its own: what a process believes of its devices cannot be taken back."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from shutil import which
from typing import Any, TypeVar

import pytest
import torch

from tests.compile.fake_card import install

SOURCE = Path(__file__).with_name("fake_card.cpp")
T = TypeVar("T")


class FailedThere(Exception):
    """What a function raised in the process of a card, as text: not all of torch's exceptions travel."""


class Cards:
    """Runs functions in the process of a card, which is started when it is first asked for."""

    def __init__(self, library: Path, caches: Path) -> None:
        self._library, self._caches = library, caches
        self._processes: dict[str, ProcessPoolExecutor] = {}

    def run(self, card: str, function: Callable[..., T], *arguments: object) -> T:
        """What the function, which is imported by its module's name, returns there.

        Raises:
            FailedThere: it raised.
        """
        if card not in self._processes:
            given = (card, str(self._library), str(self._caches))
            self._processes[card] = ProcessPoolExecutor(1, get_context("spawn"), install, given)
        found, error = self._processes[card].submit(_attempt, function, *arguments).result()
        if error is not None:
            raise FailedThere(error)
        return found

    def close(self) -> None:
        """End the processes."""
        for process in self._processes.values():
            process.shutdown()


def _attempt(function: Callable[..., Any], *arguments: object) -> tuple[Any, str | None]:
    try:
        return function(*arguments), None
    except Exception:
        return None, traceback.format_exc()


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``fake_card.cpp``, compiled. Skips where something is missing that compiling for a card takes."""
    if torch.version.cuda is not None:
        pytest.skip("torch is built for CUDA here: nothing pretends to be a card beside it")
    if importlib.util.find_spec("triton") is None:
        pytest.skip("Triton is missing: make test-compile says how to get it")
    compiler = next((name for name in (os.environ.get("CXX", ""), "g++", "clang++") if which(name)), None)
    if compiler is None:
        pytest.skip("no C++ compiler: neither g++ nor clang++")
    built, of_torch = tmp_path_factory.mktemp("card") / "fake_card.so", Path(torch.__file__).parent
    headers = [f"-I{of_torch / 'include'}", f"-I{of_torch / 'include/torch/csrc/api/include'}"]
    linked = [f"-L{of_torch / 'lib'}", "-ltorch_cpu", "-lc10", f"-Wl,-rpath,{of_torch / 'lib'}"]
    command = [compiler, "-std=c++20", "-shared", "-fPIC", *headers, str(SOURCE), *linked, "-o", str(built)]
    subprocess.run(command, check=True)
    return built


@pytest.fixture(scope="module")
def cards(library: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cards]:
    """Those of one file of tests: what was compiled in its processes is not compiled again."""
    cards = Cards(library, tmp_path_factory.mktemp("caches"))
    yield cards
    cards.close()
