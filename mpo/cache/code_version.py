"""Which code a stage runs, so that an edit of it builds the stage again. Files are read, never imported. No torch.

A module's version covers all modules that it imports, at the top or inside functions, and they in turn: of :mod:`mpo`,
and of the user's own folders; of installed packages the version counts (:mod:`mpo.cache.package_versions`). Comments,
docstrings and layout do not count, nor do the parts of :mod:`mpo` that only show or estimate (:data:`IRRELEVANT`).
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import os
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from mpo.cache.package_versions import PACKAGES, package_version

IRRELEVANT = (
    "mpo.cache.checksums",
    "mpo.cache.code_version",
    "mpo.cache.locks",
    "mpo.cache.package_versions",
    "mpo.config.wording",
    "mpo.errors",
    "mpo.failures",
    "mpo.moved",
    "mpo.planning",
    "mpo.report",
    "mpo.track",
)
"""Parts of :mod:`mpo` that show, estimate, refuse or keep: what a stage computes does not depend on them."""
ONLY_WITH = {
    "mpo.policy.adapters": "lora",
    "mpo.policy.quantized": "quantization",
    "mpo.stages.rewards": "rewards",
}
"""Modules that run only in stages whose configuration has the key."""
TARGET = "_target_"
FUNCTION = "function"
OWN = "mpo."
_DOTTED = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+")
_INSTALLED = ("site-packages", "dist-packages")


@dataclass(frozen=True)
class CodeVersion:
    """The code behind a stage.

    Attributes:
        modules: hash of each module's code, by name.
        packages: versions of the installed packages that these import.
    """

    modules: Mapping[str, str]
    packages: Mapping[str, str]

    @property
    def digest(self) -> str:
        """Hexadecimal SHA-256 over the modules (20 digits of it)."""
        return hashlib.sha256(repr(sorted(self.modules.items())).encode()).hexdigest()[:20]

    def changed(self, now: CodeVersion) -> list[str]:
        """Modules that are another ``now``."""
        names = self.modules.keys() | now.modules.keys()
        return sorted(name for name in names if self.modules.get(name) != now.modules.get(name))


def code_version(task: str, config: Mapping[str, Any], now: bool = False) -> CodeVersion:
    """The code of a stage: of its task's module, and of classes and functions that its ``config`` names.

    Args:
        now: read files again that have been written to since this process read them first; otherwise their first
            version counts, as it does for what Python has imported.
    """
    unused = frozenset(module for module, key in ONLY_WITH.items() if not _has(config, key))
    references = frozenset(_references(config))
    return _version(task, references, unused, now=True) if now else _first_version(task, references, unused)


def _version(task: str, references: Iterable[tuple[str, bool]], unused: frozenset[str], now: bool) -> CodeVersion:
    walk = _Walk(now, unused)
    walk.follow(f"mpo.stages.{task}")
    for name, named in sorted(references):
        top = name.partition(".")[0]
        if named and top not in sys.stdlib_module_names:
            walk.own.add(top)
        walk.follow(name)
    return CodeVersion(walk.modules, dict(sorted(walk.packages.items())))


@cache
def _first_version(task: str, references: frozenset[tuple[str, bool]], unused: frozenset[str]) -> CodeVersion:
    return _version(task, references, unused, now=False)


def _references(node: Any, inside: bool = False) -> Iterator[tuple[str, bool]]:
    """Dotted names in the ``_target_`` nodes of a configuration; whether it is surely one of code."""
    if isinstance(node, Mapping):
        inside = inside or TARGET in node
        for key, value in node.items():
            if inside and isinstance(value, str) and _DOTTED.fullmatch(value):
                yield value, key in (TARGET, FUNCTION)
            else:
                yield from _references(value, inside)
    elif isinstance(node, list | tuple):
        for value in node:
            yield from _references(value, inside)


def _has(node: Any, key: str) -> bool:
    """Whether a configuration has the key, at any depth, with a value."""
    if not isinstance(node, Mapping):
        return False
    return node.get(key) is not None or any(_has(value, key) for value in node.values())


@dataclass
class _Walk:
    """Modules met so far. ``own``: top-level packages that count although they are installed."""

    now: bool
    unused: frozenset[str]
    modules: dict[str, str] = field(default_factory=dict)
    packages: dict[str, str] = field(default_factory=dict)
    own: set[str] = field(default_factory=lambda: {"mpo"})

    def follow(self, name: str) -> None:
        """Add the module of the dotted ``name`` (a module's or that of something in one) and all that it imports."""
        todo = [(name, "")]
        while todo:
            name, importer = todo.pop()
            top = name.partition(".")[0]
            root = None if top in sys.stdlib_module_names else _root(top)
            if root is None or (top not in self.own and any(part in _INSTALLED for part in root.parts)):
                self._add_package(top, importer)
                continue
            module = _origin(root, name, self.now)
            if module is None or module.name in self.modules or module.name in self.unused:
                continue
            if f"{module.name}.".startswith(_IRRELEVANT):
                continue
            self.modules[module.name] = module.digest
            todo += [(imported, module.name) for imported in module.imports]
            parents = module.name.split(".")[:-1]
            for length in range(1, len(parents) + 1):  # which are run first, and may do something
                parent = _read(root, ".".join(parents[:length]), self.now)
                if parent is not None and parent.acts:
                    todo.append((parent.name, module.name))

    def _add_package(self, top: str, importer: str) -> None:
        if top in sys.stdlib_module_names:
            return
        by_user = importer and not f"{importer}.".startswith(OWN)
        for name in PACKAGES.get(top, (top,) if by_user else ()):
            version = package_version(name)
            if version is not None:
                self.packages[name] = version


@dataclass(frozen=True)
class _Module:
    """A source file. ``names``: where names come from that it imports; ``acts``: whether it does more than import."""

    name: str
    digest: str
    imports: tuple[str, ...]
    names: Mapping[str, str]
    acts: bool


_IRRELEVANT = tuple(f"{name}." for name in IRRELEVANT)


def _origin(root: Path, name: str, now: bool, passed_on: frozenset[str] = frozenset()) -> _Module | None:
    """The module that a dotted name leads to: itself one, or something in one, which may only pass it on.

    Args:
        passed_on: names that led here, to which modules that import from each other may lead back.
    """
    module = _read(root, name, now)
    if module is not None or "." not in name:
        return module
    holder, _, attribute = name.rpartition(".")
    module = _origin(root, holder, now, passed_on | {name})
    if module is None or module.name != holder:
        return module
    passed = module.names.get(attribute)
    if passed is not None and passed not in passed_on | {name} and passed.partition(".")[0] == name.partition(".")[0]:
        return _origin(root, passed, now, passed_on | {name}) or module
    return module


def _read(root: Path, name: str, now: bool) -> _Module | None:
    if not now:
        return _first(root, name)
    path = _file(root, name)
    return None if path is None else _parse(path, name, path.stat().st_mtime_ns, path.stat().st_size)


@cache
def _first(root: Path, name: str) -> _Module | None:
    return _read(root, name, now=True)


def _file(root: Path, name: str) -> Path | None:
    base = os.path.join(root, *name.split("."))
    return next((Path(path) for path in (f"{base}.py", f"{base}/__init__.py") if os.path.isfile(path)), None)


@cache
def _parse(path: Path, name: str, changed_ns: int, size: int) -> _Module:
    try:
        tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError):  # importing it will say so
        return _Module(name, hashlib.sha256(path.read_bytes()).hexdigest(), (), {}, True)
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    names: dict[str, str] = {}
    imports: list[str] = []
    for node in _imports(tree):
        if isinstance(node, ast.Import):
            imports += [alias.name for alias in node.names]
            continue
        above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
        base = ".".join([*above, *([node.module] if node.module else [])])
        for alias in node.names:
            imported = base if alias.name == "*" else f"{base}.{alias.name}"
            imports.append(imported)
            names[alias.asname or alias.name] = imported
    kinds = (ast.Import, ast.ImportFrom, ast.Assign, ast.AnnAssign)
    acts = not all(isinstance(node, kinds) or _is_text(node) for node in tree.body)
    digest = hashlib.sha256(ast.dump(_Bare().visit(tree)).encode()).hexdigest()
    return _Module(name, digest, tuple(imports), names, acts)


def _imports(tree: ast.AST) -> Iterator[ast.Import | ast.ImportFrom]:
    todo = [tree]
    while todo:
        node = todo.pop()
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield node
        elif isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
            todo += node.orelse
        elif isinstance(node, ast.stmt | ast.Module | ast.excepthandler | ast.match_case):
            todo += ast.iter_child_nodes(node)


class _Bare(ast.NodeTransformer):
    """Takes texts out that stand alone: docstrings, also those of attributes."""

    def visit_Expr(self, node: ast.Expr) -> ast.Expr | None:
        return None if _is_text(node) else node


def _is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


@cache
def _root(top: str) -> Path | None:
    """The folder in which the top-level module or package ``top`` lies; None for none, and for compiled ones."""
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError):
        return None
    if spec is None:
        return None
    if spec.submodule_search_locations:
        return Path(next(iter(spec.submodule_search_locations))).absolute().parent
    if spec.origin is None or not spec.origin.endswith(".py"):
        return None
    return Path(spec.origin).absolute().parent
