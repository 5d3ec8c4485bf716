"""Versions of the libraries that results depend on. No torch."""

from __future__ import annotations

import importlib.metadata
from functools import cache

PACKAGES = {
    "torch": ("torch",),
    "transformers": ("transformers", "tokenizers"),
    "tokenizers": ("tokenizers",),
    "datasets": ("datasets",),
    "deepspeed": ("deepspeed",),
    "peft": ("peft",),
    "numpy": ("numpy",),
    "bitsandbytes": ("bitsandbytes",),
    "lm_eval": ("lm_eval",),
}
"""Libraries that :mod:`mpo` imports and whose versions count, with what else their versions decide."""


@cache
def package_version(name: str) -> str | None:
    """Of an installed library; None: it is not."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def library_versions() -> dict[str, str]:
    """Versions of the libraries that results depend on; absent ones are left out."""
    found = {name: package_version(name) for group in PACKAGES.values() for name in group}
    return {name: version for name, version in found.items() if version is not None}
