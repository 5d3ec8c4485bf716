"""Stage directories: content-addressed, written atomically, shared by runs, resumed where they stopped.

A stage's *fingerprint* covers everything that can change what it writes: its task's code and that of classes which its
configuration names, its slice of the configuration, the fingerprints of the stages it reads, the content of files from
outside, and versions of the libraries that its code imports. Its directory ``<cache>/<task>/<fingerprint>`` exists only
when complete, because it is built as ``<fingerprint>.work`` and renamed. "Cached" and "resumed" are therefore one
question: does the directory exist?
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
import shutil
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mpo.cache.checksums import Damaged, Folders, read_sealed, sealed
from mpo.cache.code_version import CodeVersion, code_version
from mpo.cache.locks import is_locked, locked
from mpo.cache.stage import Stage
from mpo.errors import DataError
from mpo.plain import to_plain

MANIFEST = "manifest.json"
LAYOUT_FILE = "layout.json"
LAYOUT = 2
"""Of the cache directory: 2 since a stage's code counts."""
LOG_FOLDER = "logs"
"""In a stage's directory, what its processes printed: nothing reads it, and other machines may still be closing it."""


class Store:
    """The cache directory and the fingerprints of what lies in it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._fingerprints: dict[int, tuple[Stage, str]] = {}
        self._outside: dict[str, dict[str, str]] = {}
        self._code: dict[str, CodeVersion] = {}
        self._folders = Folders(root / "hashes", write_text)
        self._damaged: dict[Path, str] = {}

    def adopt(self) -> bool:
        """Mark the cache as one of this layout; returns whether it holds stages of an older one, of no use any more."""
        file = self.root / LAYOUT_FILE
        if file.is_file():
            return False
        older = any(self.root.glob(f"*/*/{MANIFEST}"))
        write_json(file, {"layout": LAYOUT})
        return older

    def fingerprint(self, stage: Stage) -> str:
        """Hexadecimal SHA-256 over all that can change the stage's output (20 digits of it)."""
        known = self._fingerprints.get(id(stage))
        if known is not None:
            return known[1]
        outside = {name: self.file_hash(Path(path)) for name, path in stage.files.items()}
        plain = to_plain(stage.config)
        code = code_version(stage.task, plain)
        content = {
            "task": stage.task,
            "config": plain,
            "inputs": {name: self.fingerprint(other) for name, other in stage.stages.items()},
            "files": outside,
            "hubs": {name: to_plain(hub) for name, hub in stage.hubs.items()},
            "code": code.digest,
            "libraries": code.packages,
        }
        digest = hashlib.sha256(canonical_json(content).encode()).hexdigest()[:20]
        self._outside.setdefault(digest, outside)
        self._code.setdefault(digest, code)
        self._fingerprints[id(stage)] = (stage, digest)  # the stage is kept so that its id stays its own
        return digest

    def changed_code(self, stage: Stage) -> list[str]:
        """Modules that the stage would run and that are no longer as they were when its fingerprint was made."""
        planned = self._code[self.fingerprint(stage)]
        return planned.changed(code_version(stage.task, to_plain(stage.config), now=True))

    def path(self, stage: Stage) -> Path:
        """Where the stage's directory lies once it is complete."""
        return self.root / stage.task / self.fingerprint(stage)

    def written(self, stage: Stage) -> int:
        """Bytes that the stage has on the disk, complete or half built."""
        total = 0
        for folder in (self.path(stage), self.work_path(stage)):
            for path, _, names in os.walk(folder):  # which passes over what another run has just moved or removed
                for name in names:
                    with contextlib.suppress(FileNotFoundError):
                        total += os.stat(os.path.join(path, name)).st_size
        return total

    def work_path(self, stage: Stage) -> Path:
        """Where the stage is being built."""
        path = self.path(stage)
        return path.with_name(path.name + ".work")

    def complete(self, stage: Stage) -> bool:
        """Whether the stage's directory is there and nothing wrong with it, see :meth:`damage`."""
        path = self.path(stage)
        return path.is_dir() and self.damage(stage) is None

    def damage(self, stage: Stage, thorough: bool = False) -> str | None:
        """What is wrong with the stage's directory, None if nothing is.

        A file that was found whole is not read again by this store, and a large one that has not been written to since
        any run read it is read only if the check is ``thorough``, for a process that is about to read it itself.
        """
        path = self.path(stage)
        if path in self._damaged:
            return self._damaged[path]
        try:
            manifest = read_sealed(path / MANIFEST)
            self._folders.check(path, manifest["files"], thorough)
        except Damaged as damage:
            if thorough:  # which the next look, if it is not, might not see
                self._damaged[path] = str(damage)
            return str(damage)
        return None

    def repaired(self, stage: Stage) -> bool:
        """As :meth:`complete`, of a stage whose lock is held now: another run may have built it in the meantime."""
        path = self.path(stage)
        known = self._damaged.pop(path, None)
        if known is not None:
            self._folders.forget(path)
        return path.is_dir() and self.damage(stage, thorough=known is not None) is None

    @contextlib.contextmanager
    def lock(self, stage: Stage) -> Iterator[None]:
        """Hold the right to build the stage; a second run waits here and then finds it complete.

        The kernel drops the lock when its holder dies, however it dies.
        """
        path = self.path(stage)
        path.parent.mkdir(parents=True, exist_ok=True)
        with locked(path.with_name(path.name + ".lock")):
            yield

    def locked(self, stage: Stage) -> bool:
        """Whether a run is building the stage, or looking whether it has to."""
        path = self.path(stage)
        return is_locked(path.with_name(path.name + ".lock"))

    def open_work(self, stage: Stage) -> Path:
        """An empty directory to build in, or the half-built one of a resumable stage."""
        work = self.work_path(stage)
        if work.exists() and not stage.resumable:
            shutil.rmtree(work)
        work.mkdir(parents=True, exist_ok=True)
        return work

    def commit(self, stage: Stage, facts: Mapping[str, Any]) -> Path:
        """Write the manifest and give the directory its final name.

        Raises:
            DataError: a file from outside is no longer what the fingerprint was made from; what was built is removed.
        """
        work, path = self.work_path(stage), self.path(stage)
        outside = self._outside[self.fingerprint(stage)]
        for name, file in stage.files.items():
            if self.file_hash(Path(file)) != outside[name]:
                shutil.rmtree(work)
                raise DataError(f"it changed while {stage.name} read it", Path(file).name, "run again")
        files = self._folders.listing(work, lambda name: name.name == MANIFEST or name.parts[0] == LOG_FOLDER)
        manifest = {
            "stage": stage.name,
            "task": stage.task,
            "fingerprint": self.fingerprint(stage),
            "config": to_plain(stage.config),
            "inputs": {name: self.fingerprint(other) for name, other in stage.stages.items()},
            "outside": outside,
            "hubs": {name: to_plain(hub) for name, hub in stage.hubs.items()},
            "code": self._code[self.fingerprint(stage)].digest,
            "libraries": self._code[self.fingerprint(stage)].packages,
            "files": files,
            **facts,
        }
        write_json(work / MANIFEST, sealed(manifest))
        _follow_umask(work)
        if path.exists():  # an incomplete or damaged directory under the final name
            shutil.rmtree(path)
        work.rename(path)
        self._damaged.pop(path, None)
        self._folders.forget(path)
        self._folders.remember(path, files)
        return path

    def manifest(self, stage: Stage) -> dict[str, Any]:
        """The manifest of a complete stage."""
        loaded: dict[str, Any] = json.loads((self.path(stage) / MANIFEST).read_text())
        return loaded

    def file_hash(self, path: Path) -> str:
        """Content hash of a file, or of every file of a folder; remembered by path, size and time of change."""
        if not path.exists():
            return f"absent:{path.name}"
        members = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
        digest = hashlib.sha256()
        for member in members:
            known = member.stat()
            mark = f"{member.resolve()}|{known.st_size}|{known.st_mtime_ns}"
            memo = self.root / "hashes" / hashlib.sha256(mark.encode()).hexdigest()[:32]
            if memo.is_file():
                content = memo.read_text()
            else:
                with open(member, "rb") as handle:
                    content = hashlib.file_digest(handle, "sha256").hexdigest()
                write_text(memo, content)
            name = member.name if path.is_file() else str(member.relative_to(path))
            digest.update(f"{name if path.is_dir() else ''}:{content};".encode())
        return digest.hexdigest()[:20]


def _follow_umask(folder: Path) -> None:
    """Give all that is in a folder the rights that new folders and files have: some libraries write for one user alone,
    which would lock others out of a shared cache."""
    rights = {True: folder.stat().st_mode & 0o777, False: (folder / MANIFEST).stat().st_mode & 0o777}
    for parent, folders, files in os.walk(folder):
        for is_folder, names in ((True, folders), (False, files)):
            for path in (os.path.join(parent, name) for name in names):
                mode = os.lstat(path).st_mode
                if not stat.S_ISLNK(mode) and rights[is_folder] & ~mode:
                    with contextlib.suppress(PermissionError):  # another user's, who shares the cache
                        os.chmod(path, stat.S_IMODE(mode) | rights[is_folder])


def canonical_json(value: Any) -> str:
    """One text for one value: sorted keys, no blanks."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def write_text(path: Path, text: str) -> None:
    """Replace ``path`` by ``text`` atomically."""
    write_bytes(path, text.encode("utf-8"))


def write_bytes(path: Path, content: bytes) -> None:
    """Replace ``path`` by ``content`` atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # Opened by name, not by mkstemp, whose 0600 in place of the umask would lock colleagues out of a shared cache.
    temporary = path.with_name(f".{path.name[:200]}.{secrets.token_hex(4)}")
    try:
        with open(temporary, "xb") as handle:
            handle.write(content)
            handle.flush()
            os.fsync(handle.fileno())
        os.replace(temporary, path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        if isinstance(error, OSError):
            error.filename, error.filename2 = str(path), None  # a full disk is met in writing, which names no file
        raise


def whole_lines(path: Path) -> bytes:
    """What a file that is appended to holds up to its last line's end, after which a kill may have cut; or nothing."""
    content = path.read_bytes() if path.exists() else b""
    return content[: content.rfind(b"\n") + 1]


def write_json(path: Path, value: Any) -> None:
    """Replace ``path`` by readable JSON atomically."""
    write_text(path, json.dumps(value, indent=1, allow_nan=False, sort_keys=False) + "\n")


def read_json(path: Path) -> Any:
    """The JSON value in ``path``."""
    return json.loads(path.read_text(encoding="utf-8"))
