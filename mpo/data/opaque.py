"""A rendering of a chat template in which texts cannot be looked at: what it writes is then the same for any texts.

Joining a text to others and trimming it is all that :class:`Opaque` allows; functions, filters and tests are not given
one unless they are known to look at its type alone.
"""

from __future__ import annotations

import datetime
import functools
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, cast

import jinja2
from jinja2 import ext, nodes, parser, visitor
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment

FILTERS = frozenset({"trim", "default", "d", "selectattr", "rejectattr", "select", "reject", "list", "first", "last",
                     "length", "count", "items", "reverse"})  # fmt: skip
"""Filters that ask an opaque text itself for whatever they need."""
TESTS = frozenset({"string", "mapping", "defined", "undefined", "none", "boolean", "number", "integer", "float", "true",
                   "false", "callable"})  # fmt: skip
_Functions = dict[str, Callable[..., Any]]
ITERABLE = frozenset({"iterable", "sequence"})


class InspectedError(Exception):
    """A template looks at what a text says."""


class Opaque(str):
    """A text that can be joined to others and trimmed, nothing else; ``whole`` until it is joined."""

    whole = True

    def __add__(self, other: str) -> str:
        return _joined(str.__add__(self, other))

    def __radd__(self, other: str) -> str:
        return _joined(str.__add__(other, self))

    def __str__(self) -> str:
        return self

    def strip(self, chars: Any = None, /) -> str:
        return self._trimmed(str.strip(self), chars)

    def lstrip(self, chars: Any = None, /) -> str:
        return self._trimmed(str.lstrip(self), chars)

    def rstrip(self, chars: Any = None, /) -> str:
        return self._trimmed(str.rstrip(self), chars)

    def _trimmed(self, text: str, chars: Any) -> str:
        if chars is not None or not self.whole:  # where a text is empty this would trim what is beside it
            raise InspectedError
        return Opaque(text)


def _joined(text: str) -> str:
    made = Opaque(text)
    made.whole = False
    return made


def _refuse(self: Opaque, *_: object, **__: object) -> Any:
    raise InspectedError


_KEPT = {*vars(Opaque), "__new__", "__init__", "__getattribute__", "__setattr__", "__class__", "__init_subclass__",
         "__subclasshook__", "__dir__", "__doc__", "__sizeof__", "__delattr__"}  # fmt: skip
for _name in {*dir(str), "__bool__", "__int__", "__float__", "__index__", "__rmod__"} - _KEPT:
    setattr(Opaque, _name, _refuse)


def compiled(template: str) -> jinja2.Template:
    """The template for texts that are :class:`Opaque`; raises ``jinja2.TemplateSyntaxError``."""
    environment = _Environment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, "jinja2.ext.loopcontrols"]
    )
    return environment.from_string(_Asking().visit(environment.parse(template)))


class _Environment(ImmutableSandboxedEnvironment):
    """As transformers renders chat templates."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.globals |= {"raise_exception": _raise, "strftime_now": lambda form: datetime.datetime.now().strftime(form)}
        self.filters["tojson"] = _tojson
        filters, tests = cast(_Functions, self.filters), cast(_Functions, self.tests)
        self.filters = {name: each if name in FILTERS else _guarded(each) for name, each in filters.items()}
        self.tests = {name: each if name in TESTS else _guarded(each) for name, each in tests.items()}
        tests = cast(_Functions, self.tests)
        tests |= {name: functools.partial(_is_iterable, tests[name]) for name in ITERABLE} | {"in": _is_in}

    @staticmethod
    def concat(parts: Iterable[str]) -> str:  # type: ignore[override]
        """Of what a template or a macro writes."""
        whole = list(parts)
        text = "".join(whole)
        return _joined(text) if any(isinstance(part, Opaque) for part in whole) else text

    def call(self, context: Context, function: Any, /, *arguments: Any, **named: Any) -> Any:
        """Of any function or method."""
        if function not in (dict, jinja2.utils.Namespace) and not isinstance(function, jinja2.runtime.Macro):
            _refuse_opaque((arguments, named))
        return super().call(context, function, *arguments, **named)


class _Generation(ext.Extension):
    """``{% generation %}`` marks the assistant's text and writes nothing."""

    tags = {"generation"}

    def parse(self, source: parser.Parser) -> list[nodes.Node]:
        next(source.stream)
        return source.parse_statements(("name:endgeneration",), drop_needle=True)


class _Asking(visitor.NodeTransformer):
    """Operators that would read a text without asking it, replaced by others that do the same."""

    def visit_Concat(self, node: nodes.Concat, *_: Any) -> nodes.Expr:
        self.generic_visit(node)
        return functools.reduce(lambda left, right: nodes.Add(left, right, lineno=node.lineno), node.nodes)

    def visit_Compare(self, node: nodes.Compare, *_: Any) -> nodes.Expr:
        self.generic_visit(node)
        if all(operand.op not in ("in", "notin") for operand in node.ops):
            return node
        if len(node.ops) > 1:
            raise InspectedError
        found = nodes.Test(node.expr, "in", [node.ops[0].expr], [], None, None, lineno=node.lineno)
        return found if node.ops[0].op == "in" else nodes.Not(found, lineno=node.lineno)


def _guarded(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def guarded(*arguments: Any, **named: Any) -> Any:
        _refuse_opaque((arguments, named))
        return function(*arguments, **named)

    return guarded


def _refuse_opaque(value: Any) -> None:
    if isinstance(value, Opaque | Iterator):
        raise InspectedError
    if isinstance(value, Mapping):
        value = [*value.keys(), *value.values()]
    if isinstance(value, list | tuple):
        for item in value:
            _refuse_opaque(item)


def _is_in(value: Any, container: Any) -> bool:
    if isinstance(value, Opaque):
        raise InspectedError
    return value in container  # which refuses by itself where it is opaque


def _is_iterable(test: Callable[[Any], bool], value: Any) -> bool:
    return isinstance(value, Opaque) or test(value)


def _raise(message: str) -> None:
    raise jinja2.TemplateError(message)


def _tojson(value: Any, ensure_ascii: bool = False, indent: Any = None, separators: Any = None, sort_keys: bool = False) -> str:  # fmt: skip  # noqa: E501
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)
