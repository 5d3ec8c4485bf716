"""Failures of the surroundings as one line: the disk, permissions, memory, the network, a killed process.

Libraries report them in many ways: as an ``OSError``, as its number in a text, or as whatever went wrong next.
"""

from __future__ import annotations

import errno
import os
import re
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

from mpo.errors import ProcessError, UserError

GO_ON = "then run the same command again, it goes on from where it was"
_PROBE_BYTES = 1 << 16
_NUMBER = re.compile(r"(?:os error|Errno) (\d+)\b")
_TEXTS = {
    "No space left on device": errno.ENOSPC,
    "database or disk is full": errno.ENOSPC,
    "Disk quota exceeded": errno.EDQUOT,
    "Read-only file system": errno.EROFS,
    "Cannot allocate memory": errno.ENOMEM,
    "can't start new thread": errno.EAGAIN,
}
_DISK = {
    errno.ENOSPC: ("the disk is full", f"make room there, {GO_ON}"),
    errno.EDQUOT: ("the disk quota is used up", f"make room there, {GO_ON}"),
    errno.EFBIG: (
        "the file would be larger than the file system or the user's limit allows",
        f"raise the limit (ulimit -f) or name a folder on another file system, {GO_ON}",
    ),
    errno.EROFS: ("the file system is read-only", "name another folder"),
    errno.EIO: ("the disk cannot be read or written (input/output error)", f"look at the disk, {GO_ON}"),
    errno.ESTALE: ("the network file system has lost the file", f"mount it again, {GO_ON}"),
}
_LIMITS = {
    errno.EMFILE: ("too many open files", "raise the limit: ulimit -n 65536"),
    errno.ENFILE: ("too many open files on this machine", "close other programs"),
    errno.EAGAIN: ("no further process or thread can be started", "raise the limit: ulimit -u, or use fewer processes"),
}
_NETWORK = (errno.ETIMEDOUT, errno.ECONNREFUSED, errno.ECONNRESET, errno.ENETUNREACH, errno.EHOSTUNREACH)
_MEMORY = re.compile(r"DefaultCPUAllocator|not enough memory|out of memory|ALLOC_FAILED", re.IGNORECASE)
_SMALLER = (
    "lower train.micro_tokens and train.micro_batch (sampler.batch_tokens where it samples, evaluate.batch), or set "
    "train.activation_checkpointing=1"
)
_OF_LIBRARIES = {
    "safetensors": ("a file of weights is damaged", "save or download it again"),
    "huggingface_hub": ("the hub did not give it", "check the name, your access (hf auth login) and the network"),
}
_KILLED = {
    signal.SIGKILL: "perhaps out of memory",
    signal.SIGBUS: "perhaps a full disk or /dev/shm",
    signal.SIGSEGV: "a crash inside a library",
    signal.SIGABRT: "a crash inside a library",
    signal.SIGILL: "a library built for another processor",
}


def explain_failure(error: BaseException, *folders: Path) -> UserError | None:
    """The failure of the surroundings behind ``error`` or its causes; None if there is none.

    A user's mistake is one already, unless a full disk is what was taken for it.

    Args:
        folders: where the failing code writes: named where the error names no file, and tried in case it is the
            consequence of a full disk.
    """
    if isinstance(error, UserError):
        for one in _causes(error):
            if (number := _number_of(one)) in (errno.ENOSPC, errno.EDQUOT):
                return _of_number(number, one, folders)
        return None
    for one in _causes(error):
        if explained := _explain_one(one, folders):
            return explained
    return full_disk(*folders)


def full_disk(*folders: Path) -> UserError | None:
    """What to say if nothing can be written to one of the folders' disks for lack of room; None if there is room."""
    for folder in folders:
        there = next(parent for parent in (folder, *folder.parents) if os.path.exists(parent))
        try:
            with tempfile.TemporaryFile(dir=there) as probe:
                probe.write(bytes(_PROBE_BYTES))
                probe.flush()
                os.fsync(probe.fileno())
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                what, remedy = _DISK[error.errno]
                return UserError(what, str(folder), remedy)
    return None


def explain_killed(number: int, stage: str, log: Path) -> ProcessError:
    """A stage's process that signal ``number`` has ended."""
    try:
        name = signal.Signals(number)
    except ValueError:
        return ProcessError(f"its process was killed by signal {number}", stage, f"its log: {log}")
    why = f", {_KILLED[name]}" if name in _KILLED else ""
    remedy = f"; {_SMALLER}, {GO_ON}" if name is signal.SIGKILL else f"; its log: {log}"
    return ProcessError(f"its process was killed by signal {number} ({name.name}){why}{remedy}", stage)


def _causes(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    one: BaseException | None = error
    while one is not None and id(one) not in seen:
        seen.add(id(one))
        yield one
        one = one.__cause__ or (None if one.__suppress_context__ else one.__context__)


def _explain_one(error: BaseException, folders: tuple[Path, ...]) -> UserError | None:
    text = str(error)
    kinds = {f"{cls.__module__.partition('.')[0]}.{cls.__name__}" for cls in type(error).__mro__}
    if "builtins.MemoryError" in kinds or (isinstance(error, RuntimeError) and _MEMORY.search(text)):
        return UserError(f"out of memory ({_first_sentence(error)})", "", _SMALLER)
    if any(name.endswith(".BrokenProcessPool") for name in kinds):
        return ProcessError(f"a process was killed, perhaps out of memory; make room, {GO_ON}")
    number = _number_of(error)
    if number is not None and (explained := _of_number(number, error, folders)):
        return explained
    library = type(error).__module__.partition(".")[0]
    if library in _OF_LIBRARIES:
        what, remedy = _OF_LIBRARIES[library]
        return UserError(f"{what} ({_first_sentence(error)})", "", remedy)
    return None


def _number_of(error: BaseException) -> int | None:
    """The system's number of an error, from its text where a library tells it there."""
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno
    text = str(error)
    if found := _NUMBER.search(text):
        return int(found.group(1))
    return next((number for part, number in _TEXTS.items() if part in text), None)


def _of_number(number: int, error: BaseException, folders: tuple[Path, ...]) -> UserError | None:
    name = getattr(error, "filename", None)
    named = os.fsdecode(name) if isinstance(name, str | bytes) else None
    where = named or (str(folders[0]) if folders else "")
    if number in _DISK:
        what, remedy = _DISK[number]
        return UserError(what, where, remedy)
    if number in _LIMITS:
        what, remedy = _LIMITS[number]
        return UserError(what, named or "", remedy)
    if number == errno.ENOMEM:
        return UserError("out of memory", named or "", _SMALLER)
    if number in (errno.EACCES, errno.EPERM):
        if named is None and all(os.access(folder, os.W_OK) for folder in folders if os.path.exists(folder)):
            return UserError(
                f"the system does not permit it ({_first_sentence(error)})", "", "ask who runs the machine"
            )
        return UserError(_forbidden(Path(where)), where, "change its permissions, or name another")
    if number in _NETWORK:
        return UserError(f"the network failed ({os.strerror(number)})", named or "", f"fix it, {GO_ON}")
    return None


def _forbidden(path: Path) -> str:
    """What this user may not do with ``path``."""
    there = os.path.exists(path)  # unlike pathlib's, False where the folder may not be entered
    if not there and not os.access(path.parent, os.X_OK):
        return "this user may not look into its folder"
    if not there and not os.access(path.parent, os.W_OK):
        return "this user may not write to its folder"
    if there and not os.access(path, os.R_OK):
        return "this user may not read it"
    return "this user may not write to it"


def _first_sentence(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = lines[0] if lines else type(error).__name__
    return text.partition(". ")[0][:150]
