"""``_target_`` nodes to instances: the rest of a node is merged into the dataclass that its target names. No torch."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, Field, fields, is_dataclass
from inspect import isabstract
from typing import Any, TypeVar, cast, get_args, get_origin, get_type_hints

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from mpo.config.wording import expected, hint
from mpo.errors import ConfigError, UserError

TARGET = "_target_"
OWN = "mpo."
FIELD_TYPES = "int, float, bool, str, an Enum, list and dict of them, or one of them and None"

T = TypeVar("T")


def build(node: Mapping[str, Any], base: type[T], allow: Sequence[str], key: str) -> T:
    """The instance of ``base`` that ``node`` describes.

    Args:
        node: ``_target_`` (dotted path of a dataclass) and values of its fields.
        base: what the target must be a subclass of.
        allow: prefixes of dotted paths that a target may have beside ``mpo.`` (``allow_targets``).
        key: config key of the node, for messages.

    Raises:
        ConfigError: a target that is missing, not allowed, not importable or of another kind; a field that the
            dataclass lacks (with the nearest that it has), is of the wrong type or without value.
    """
    if not isinstance(node, Mapping):  # where a configuration holds nodes by name, its schema does not check them
        raise ConfigError(f"{node!r} is no class with options", key, f"give {key}.{TARGET}=package.module.Class")
    cls = resolve(node, base, allow, key)
    values = {str(name): value for name, value in node.items() if name != TARGET}
    try:
        return cls(**_converted(cls, values, allow, key))
    except UserError:
        raise
    except (Exception, SystemExit) as error:
        if str(node[TARGET]).startswith(OWN):
            raise
        raise ConfigError(
            f"{cls.__name__} cannot be made: {_described(error)}", key, "fix the class or its values"
        ) from error


def resolve(node: Mapping[str, Any], base: type[T], allow: Sequence[str], key: str) -> type[T]:
    """The class that the node's ``_target_`` names; raises as :func:`build` does."""
    where = f"{key}.{TARGET}"
    target = node.get(TARGET)
    if not isinstance(target, str) or "." not in target:
        raise ConfigError(f"no class is named: {target!r}", where, "give package.module.Class, or choose an option")
    if not any(target == prefix or target.startswith(f"{prefix.rstrip('.')}.") for prefix in (OWN, *allow)):
        raise ConfigError(
            f"'{target}' is not part of mpo", where, f"allow it: 'allow_targets=[{target.split('.')[0]}]'"
        )
    module_name, _, class_name = target.rpartition(".")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise ConfigError(f"'{target}' needs the package '{error.name}'", where, "install it") from error
        raise ConfigError(f"there is no module '{module_name}'", where, "correct the path or install it") from error
    except (Exception, SystemExit) as error:
        if target.startswith(OWN):
            raise
        raise ConfigError(f"importing '{module_name}' raised {_described(error)}", where, "fix the module") from error
    cls = getattr(module, class_name, None)
    if cls is None:
        names = [name for name, value in vars(module).items() if isinstance(value, type) and issubclass(value, base)]
        raise ConfigError(f"'{module_name}' has no '{class_name}'", where, hint(class_name, names))
    if not (isinstance(cls, type) and issubclass(cls, base) and is_dataclass(cls)):
        raise ConfigError(f"'{target}' is not a {base.__name__} dataclass", where, "name one that is")
    return cast(type[T], cls)


def _described(error: BaseException) -> str:
    first = next(iter(str(error).splitlines()), "")
    return f"{type(error).__name__}: {first}" if first else type(error).__name__


def _required(field: Field[Any]) -> bool:
    return field.default is MISSING and field.default_factory is MISSING


def own_alone(node: Any) -> bool:
    """Whether every ``_target_`` of a node, those of nodes within it too, is part of ``mpo``."""
    if isinstance(node, Mapping):
        return str(node.get(TARGET, OWN)).startswith(OWN) and all(own_alone(value) for value in node.values())
    return all(own_alone(value) for value in node) if isinstance(node, list | tuple) else True


def _within(node: Mapping[str, Any], base: type[T], allow: Sequence[str], key: str) -> T:
    """As :func:`build`, for a node within another: classes name their fields from the group on, ``loss.beta``."""
    try:
        return build(node, base, allow, key)
    except ConfigError as error:
        group, dot, rest = error.where.partition(".")
        if not dot or error.where.startswith(key) or group != key.partition(".")[0]:
            raise
        raise ConfigError(error.what, f"{key}.{rest}", error.remedy) from error


def _converted(cls: type, values: Mapping[str, Any], allow: Sequence[str], key: str) -> dict[str, Any]:
    """``values`` as the fields' types have them, by OmegaConf's conversions ("1" to 1, a name to an Enum's member)."""
    known = {field.name: field for field in fields(cls) if field.init}
    for name in values:
        if name not in known:
            raise ConfigError(f"{cls.__name__} has no '{name}'", f"{key}.{name}", hint(name, known))
    for name, field in known.items():
        if values.get(name) == "???" or (name not in values and _required(field)):
            raise ConfigError("has no value", f"{key}.{name}", f"give one: {key}.{name}=…")
    try:
        types = get_type_hints(cls)
        schema = cast(DictConfig, OmegaConf.structured(cls))
    except Exception as error:  # a name that its module lacks, a type that no YAML holds
        what = f"the fields of {cls.__name__} cannot be configured: {_described(error)}"
        raise ConfigError(what, f"{key}.{TARGET}", f"give them types of these: {FIELD_TYPES}") from error
    result = {}
    for name, value in values.items():
        record = _record(types[name])
        if record is not None and value is not None:
            result[name] = _of_records(types[name], record, value, allow, f"{key}.{name}")
            continue
        try:
            node = cast(DictConfig, OmegaConf.merge(schema, {name: value}))[name]
        except (OmegaConfBaseException, OverflowError) as error:
            where = f"{key}.{name}"
            raise ConfigError(f"{value!r} does not fit", where, f"give {expected(types[name])}") from error
        result[name] = OmegaConf.to_object(node) if OmegaConf.is_config(node) else node
    return result


def _record(kind: Any) -> type | None:
    """The dataclass that a field holds: alone, perhaps None, or by name."""
    inner = [kind] if get_origin(kind) is list else [kind, *get_args(kind)]
    return next((one for one in inner if isinstance(one, type) and is_dataclass(one)), None)


def _of_records(kind: Any, record: type, value: Any, allow: Sequence[str], key: str) -> Any:
    """``value`` as the ``record`` that its field has, or as several by name; OmegaConf takes none that are frozen.

    An abstract one is a node of its own, whose ``_target_`` says which of its classes."""
    if not isinstance(value, Mapping):
        raise ConfigError(f"{value!r} does not fit", key, "give a mapping like {key: value}")
    if get_origin(kind) is not dict:
        if isabstract(record):
            return _within(value, record, allow, key)
        return record(**_converted(record, {str(name): each for name, each in value.items()}, allow, key))
    return {str(name): _of_records(record, record, each, allow, f"{key}.{name}") for name, each in value.items()}
