"""Where conf/, experiments/ and sweeps/ lie: beside the package in a checkout, inside it in a wheel."""

from __future__ import annotations

from pathlib import Path

PACKAGE = Path(__file__).resolve().parent.parent


def folder(name: str) -> Path:
    """Absolute path of ``conf``, ``experiments`` or ``sweeps``, whatever the working directory.

    In a wheel they travel as ``mpo/_conf``, ``mpo/_experiments`` and ``mpo/_sweeps``.
    """
    packaged = PACKAGE / f"_{name}"
    return packaged if packaged.is_dir() else PACKAGE.parent / name


def options(group: str) -> list[str]:
    """Names that the config group ``group`` offers, sorted; empty if there is no such group."""
    return sorted(path.stem for path in (folder("conf") / group).glob("*.yaml"))


def groups() -> list[str]:
    """Names of the config groups, sorted."""
    return sorted(path.name for path in folder("conf").iterdir() if path.is_dir())
