"""What this user may read and write, asked before anything is loaded."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from mpo.cache.artifacts import MANIFEST, Store, read_json
from mpo.cache.stage import Stage
from mpo.config.schema import RunConfig
from mpo.config.source import source_of
from mpo.errors import ConfigError

_MARKS = ("config.json", "tokenizer.json", "tokenizer_config.json")
_OTHER = "change its permissions, or name another"
_SHARED = "change its permissions (umask 002 before shared runs), or use a cache of your own: cache_dir=FOLDER"


def check_inputs(config: RunConfig) -> None:
    """Raise ConfigError for a file or folder that the configuration names and this user may not read."""
    named = {
        **source_of(config.data, config.allow_targets).reads,
        "model.path": config.model.path,
        "model.reference": config.model.reference,
        "model.tokenizer": config.model.tokenizer,
        "model.chat_template": config.model.chat_template,
        "partition.path": config.partition.get("path"),
    }
    for key, name in named.items():
        if isinstance(name, str) and name:
            _check_readable(os.path.expanduser(name), key)


def check_output(folder: Path) -> None:
    """Raise ConfigError if the run's own folder, which exists, takes no files: the report is its last step."""
    for part in (folder, folder / "figures"):
        if os.path.exists(part) and not os.access(part, os.W_OK | os.X_OK):
            raise ConfigError(f"this user may not write to '{part}'", "hydra.run.dir", _OTHER)


def check_cache(store: Store, stages: Iterable[Stage]) -> None:
    """Raise ConfigError for what this user may not read of complete stages, or not write for the others."""
    _check_writable(store.root / "hashes")
    for stage in stages:
        path = store.path(stage)
        if os.path.exists(path):
            _check_complete(path)
        else:
            for needed in (path.parent, store.work_path(stage)):
                _check_writable(needed)


def _check_readable(path: str, key: str) -> None:
    for parent in reversed(Path(path).parents):
        if os.path.isdir(parent) and not os.access(parent, os.X_OK):
            raise ConfigError(f"this user may not look into '{parent}'", key, _OTHER)
    folders = [path] if os.path.isdir(path) else []
    if not folders and os.path.exists(path) and not os.access(path, os.R_OK):
        raise ConfigError(f"this user may not read '{path}'", key, _OTHER)
    for folder in folders:  # grows
        if not os.access(folder, os.R_OK | os.X_OK):
            raise ConfigError(f"this user may not look into '{folder}'", key, _OTHER)
        if not any(os.path.exists(os.path.join(path, name)) for name in _MARKS):
            return  # neither model nor tokenizer, as is said later: it may be anything, and of any size
        for entry in os.scandir(folder):
            if entry.is_dir(follow_symlinks=False):
                folders.append(entry.path)
            elif _is_file(entry) and not os.access(entry.path, os.R_OK):
                raise ConfigError(f"this user may not read '{entry.path}'", key, _OTHER)


def _is_file(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_file()
    except PermissionError:  # a link to what this user may not look into
        return True


def _check_complete(path: Path) -> None:
    if not os.access(path, os.R_OK | os.X_OK):
        raise ConfigError(f"this user may not look into '{path}'", "cache_dir", _SHARED)
    manifest = path / MANIFEST
    files = [manifest]
    if os.access(manifest, os.R_OK):
        files += [path / name for name in _listed(manifest)]
    for file in files:
        hidden = os.path.isdir(file.parent) and not os.access(file.parent, os.X_OK)
        if hidden or (os.path.exists(file) and not os.access(file, os.R_OK)):
            raise ConfigError(f"this user may not read '{file}'", "cache_dir", _SHARED)


def _listed(manifest: Path) -> list[str]:
    """Files that a manifest lists; none of a damaged one, whose stage is built again."""
    try:
        return list(read_json(manifest)["files"])
    except (ValueError, KeyError, TypeError):
        return []


def _check_writable(folder: Path) -> None:
    """Raise ConfigError if this user may not make entries in ``folder``, or in the nearest one above that is there."""
    there = next(parent for parent in (folder, *folder.parents) if os.path.exists(parent))
    if not os.access(there, os.W_OK | os.X_OK):
        raise ConfigError(f"this user may not write to '{there}'", "cache_dir", _SHARED)
