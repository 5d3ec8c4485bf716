"""What the surroundings do to a run is one line, however a library puts it."""

from __future__ import annotations

import errno
import os
import resource
import signal
from collections.abc import Callable
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import pytest
import torch
from huggingface_hub.errors import OfflineModeIsEnabled
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from mpo.cache.artifacts import write_text
from mpo.errors import ProcessError, UserError
from mpo.failures.explain import explain_failure, explain_killed, full_disk
from mpo.train.files import save_tensors
from tests.conftest import fill

FOLDER = Path("/cache/train/0123.work")


def raised(action: Callable[[], object]) -> BaseException:
    try:
        action()
    except Exception as error:
        return error
    raise AssertionError("nothing was raised")


def from_a_consequence() -> None:
    try:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    except OSError:
        int("what went wrong next")


@pytest.mark.parametrize(
    ("error", "parts"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), (str(FOLDER), "disk is full", "make room")),
        (OSError(errno.ENOSPC, "No space left on device", "/tmp/a.bin"), ("/tmp/a.bin", "disk is full")),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), ("quota", "make room")),
        (OSError(errno.EFBIG, "File too large"), (str(FOLDER), "larger than", "ulimit -f")),
        (OSError(errno.EROFS, "Read-only file system", "/a/b"), ("/a/b", "read-only", "another folder")),
        (OSError(errno.EIO, "Input/output error"), ("input/output error", "run the same command again")),
        (OSError(errno.EMFILE, "Too many open files", "x"), ("too many open files", "ulimit -n")),
        (OSError(errno.ENETUNREACH, "Network is unreachable"), ("the network failed", "run the same command again")),
        (SafetensorError("I/O error: No space left on device (os error 28)"), ("disk is full", str(FOLDER))),
        (RuntimeError("sqlite: database or disk is full"), ("disk is full",)),
        (raised(from_a_consequence), ("disk is full",)),
        (MemoryError(), ("out of memory", "train.micro_tokens")),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB. GPU 0 has"), ("CUDA out of memory",)),
        (RuntimeError("can't start new thread"), ("no further process or thread", "ulimit -u")),
        (BrokenProcessPool("A process in the pool was terminated abruptly"), ("killed, perhaps out of memory",)),
        (OfflineModeIsEnabled("Cannot reach the hub: offline mode is enabled."), ("the hub", "check the name")),
    ],
)
def test_one_line_says_what_failed_and_what_to_do(error: BaseException, parts: tuple[str, ...]) -> None:
    explained = explain_failure(error, FOLDER)
    assert explained is not None
    for part in parts:
        assert part in str(explained)
    assert len(str(explained)) < 400 and "\n" not in str(explained)


def test_memory_that_torch_asks_for_and_does_not_get() -> None:
    explained = explain_failure(raised(lambda: torch.empty(1 << 60, dtype=torch.uint8)))
    assert explained is not None and "out of memory" in str(explained)


def test_a_file_above_the_users_limit(tmp_path: Path) -> None:
    """While torch writes a checkpoint, of which it says something else."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, before[1]))
    try:
        error = raised(lambda: save_tensors(torch.zeros(1 << 16), tmp_path / "a.pt"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not isinstance(error, OSError)
    explained = explain_failure(error, FOLDER)
    assert explained is not None and "the file would be larger than" in str(explained)


def test_damaged_weights(tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    save_file({"a": torch.zeros(9)}, file)
    file.write_bytes(file.read_bytes()[:-5])
    explained = explain_failure(raised(lambda: safe_open(file, "pt")))
    assert explained is not None and "a file of weights is damaged" in str(explained)


@pytest.mark.parametrize("error", [KeyError("x"), ValueError("shape"), RuntimeError("shape"), OSError(2, "x")])
def test_a_bug_is_none_of_it(error: Exception, tmp_path: Path) -> None:
    assert explain_failure(error, tmp_path) is None


def test_a_permission_that_is_no_files_blames_no_folder(tmp_path: Path) -> None:
    explained = explain_failure(PermissionError(errno.EPERM, "Operation not permitted"), tmp_path)
    assert explained is not None and str(tmp_path) not in str(explained)
    assert str(explained).startswith("the system does not permit it ([Errno 1] Operation not permitted)")


def test_a_disk_with_room_is_not_full(tmp_path: Path) -> None:
    assert full_disk(tmp_path / "not" / "made") is None
    assert not list(tmp_path.iterdir())


def test_a_full_disk_is_found_behind_any_error(small_disk: Callable[[int], Path], tmp_path: Path) -> None:
    folder = small_disk(64)
    fill(folder)
    explained = explain_failure(ValueError("Expecting value: line 1"), tmp_path, folder / "train" / "x.work")
    assert explained is not None and str(explained).startswith(f"{folder}/train/x.work: the disk is full; make room")


def test_a_write_that_failed_names_its_file(small_disk: Callable[[int], Path]) -> None:
    folder = small_disk(64)
    fill(folder)
    explained = explain_failure(raised(lambda: write_text(folder / "result.json", "{}")))
    assert explained is not None and str(explained).startswith(f"{folder}/result.json: the disk is full")
    assert sorted(path.name for path in folder.iterdir()) == ["fill"]


@pytest.mark.parametrize(
    ("number", "parts"),
    [
        (signal.SIGKILL, ("killed by signal 9 (SIGKILL), perhaps out of memory", "train.micro_tokens")),
        (signal.SIGSEGV, ("signal 11 (SIGSEGV)", "log")),
        (signal.SIGBUS, ("signal 7 (SIGBUS)", "/dev/shm")),
    ],
)
def test_a_killed_process_is_nobodys_mistake(number: int, parts: tuple[str, ...]) -> None:
    explained = explain_killed(number, "train", Path("logs"))
    for part in ("train: ", *parts):
        assert part in str(explained)
    assert isinstance(explained, ProcessError) and isinstance(explained, UserError) and explained.exit_code == 1


def test_a_full_disk_that_was_taken_for_a_mistake() -> None:
    def save() -> None:
        try:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            raise UserError(f"cannot be saved: {error}", "model.path", "correct it") from error

    explained = explain_failure(raised(save), FOLDER)
    assert explained is not None and str(explained).startswith(f"{FOLDER}: the disk is full")
    assert explain_failure(UserError("no such key", "loss"), FOLDER) is None
