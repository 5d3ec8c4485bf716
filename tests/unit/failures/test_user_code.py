"""Whatever a user's code raises is one line; our own bugs and failures of the surroundings pass."""

from __future__ import annotations

import errno
import os
import signal
import sys
from collections.abc import Callable

import pytest

from mpo.errors import ConfigError, DataError
from mpo.failures.user_code import user_code


def recurse() -> None:
    recurse()


def fail(error: BaseException) -> Callable[[], None]:
    def raising() -> None:
        raise error

    return raising


@pytest.mark.parametrize(
    ("act", "explained"),
    [
        (fail(ValueError("my own bug\nsecond line")), "raised ValueError: my own bug at"),
        (fail(KeyError()), "raised KeyError at"),
        (lambda: sys.exit("done"), r"called exit\(done\) at"),
        (recurse, "raised RecursionError: maximum recursion depth exceeded"),
        (fail(ValueError("x" * 10_000)), "raised ValueError: xxx"),
    ],
)
def test_what_it_raises_is_one_line(act: Callable[[], None], explained: str) -> None:
    with pytest.raises(ConfigError, match=rf"^loss: Mine {explained}.*test_user_code\.py:\d+; correct it$") as raised, (
        user_code("mine", "Mine", "loss")
    ):  # fmt: skip
        act()
    assert len(str(raised.value)) < 400


def test_the_traceback_goes_to_a_stage_s_log(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "1")
    with pytest.raises(ConfigError, match="correct it; its traceback is in the stage's log"), (
        user_code("mine", "Mine", "loss")
    ):  # fmt: skip
        fail(ValueError("my own bug"))()
    assert "Traceback" in capsys.readouterr().err


def test_mistakes_bugs_of_ours_and_failures_of_the_surroundings_pass() -> None:
    with pytest.raises(DataError, match="^set 3: told already$"), user_code("mine", "Mine", "loss"):
        raise DataError("told already", "set 3")
    with pytest.raises(ValueError, match="^ours$"), user_code("mpo.losses.mpo", "MPO", "loss"):
        raise ValueError("ours")
    with pytest.raises(OSError, match="No space"), user_code("mine", "Mine", "loss"):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt), user_code("mine", "Mine", "loss"):  # of the terminal
            raise KeyboardInterrupt
    finally:
        signal.signal(signal.SIGINT, before)
