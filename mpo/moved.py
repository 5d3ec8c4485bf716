"""Names that modules had up to version 0.3.0, for scripts that import them: each still works, with a warning."""

from __future__ import annotations

import importlib
import sys
import warnings
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import spec_from_loader
from types import ModuleType

_OF_POLICY = ("head", "layers", "load", "model_class", "pieces", "probe")
_OF_ATTENTION = ("backends", "dense", "flex", "interface", "outputs", "prompt")
MOVED = {
    "mpo.artifacts": "mpo.cache.artifacts",
    "mpo.config.rules": "mpo.pipeline.rules",
    "mpo.data.quick": "mpo.data.fast_render",
    "mpo.logprobs.attention": "mpo.policy.attention",
    "mpo.logprobs.attention.blocks": "mpo.policy.cpu.block_attention",
    "mpo.logprobs.attention.visibility": "mpo.policy.visibility",
    "mpo.logprobs.batch": "mpo.layout.batch",
    "mpo.logprobs.packing": "mpo.layout.packing",
    "mpo.logprobs.policy": "mpo.policy.module",
    **{f"mpo.logprobs.{name}": f"mpo.policy.{name}" for name in _OF_POLICY},
    **{f"mpo.logprobs.attention.{name}": f"mpo.policy.attention.{name}" for name in _OF_ATTENTION},
}
"""New name by old name."""


class _Moved(MetaPathFinder, Loader):
    """Asked first: below a package that has moved, files would be found by their old names too, and loaded twice."""

    def __init__(self) -> None:
        self._specs: dict[str, ModuleSpec | None] = {}

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        return spec_from_loader(fullname, self) if fullname in MOVED else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        new = MOVED[spec.name]
        warnings.warn(f"{spec.name} is {new} now", DeprecationWarning, stacklevel=2)
        module = importlib.import_module(new)
        self._specs[new] = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        module.__spec__ = self._specs[module.__name__]  # which the import system has replaced by the old name's


def keep_old_names() -> None:
    """Let ``import`` find modules by their old names too. Calling it again changes nothing."""
    if not any(isinstance(finder, _Moved) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Moved())
