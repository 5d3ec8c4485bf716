"""Hydra's and OmegaConf's exceptions as one line: what, which key, what to do. No torch."""

from __future__ import annotations

import os
import re
import traceback
from collections.abc import Iterable
from typing import Any, get_type_hints

import yaml
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig
from omegaconf.errors import (
    ConfigAttributeError,
    ConfigKeyError,
    InterpolationKeyError,
    InterpolationResolutionError,
    MissingMandatoryValue,
    OmegaConfBaseException,
    ValidationError,
)

from mpo.config.paths import groups, options
from mpo.config.schema import RunConfig
from mpo.config.wording import expected, hint
from mpo.errors import ConfigError, UserError

_NULL_NODE = ("Unexpected type for root", "Unexpected type: None", "'NoneType' object has no attribute")
"""How Hydra fails at a key below one that is null; neither message names the key."""

_OF_GROUPS = "_dummy_"
"""Hydra's name for what it resolves options of groups below."""

COMPOSERS = ("hydra", "omegaconf", "antlr4", "yaml", "copy")
"""Packages that make a configuration out of a command line and files."""


def explain(error: BaseException) -> UserError | None:
    """The user's mistake behind an exception, by its type; None if it is none.

    Hydra must not catch the exception first: with ``HYDRA_FULL_ERROR=1`` it leaves that to the caller.
    """
    if isinstance(error, UserError):
        return error
    if isinstance(error, MissingConfigException):
        return _unknown_option(error)
    if isinstance(error, OverrideParseException):
        remedy = "write key=value, and quote what has blanks, commas or brackets: 'name=\"a, b\"'"
        return ConfigError("not a readable override", f"'{error.override}'", remedy)
    if isinstance(error, HydraException):
        cause = error.__cause__ or error.__context__  # for a mistake in a file Hydra names no cause
        file, text = _named_file(str(error))
        explained = _of_key(cause) if isinstance(cause, OmegaConfBaseException) else _of_composition(text)
        return explained if file is None else _in_file(explained, file, text)
    if isinstance(error, OmegaConfBaseException):
        return _of_key(error)
    return None


def explain_composition(error: BaseException) -> UserError | None:
    """The same before a run has begun, when some of Hydra's exceptions can be recognised by their text alone."""
    if explained := explain(error):
        return explained
    if isinstance(error, (AssertionError, AttributeError)) and str(error).startswith(_NULL_NODE):
        remedy = "leave it out, or fill it first: train/lora=adapters for train.lora, model=small for model.scratch"
        return ConfigError("an override goes below a key that is null", "", remedy)
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        where = f"{error.problem_mark.name}:{error.problem_mark.line + 1}"
        return ConfigError(f"not readable as YAML: {error.problem}", where, "fix it")
    if isinstance(error, UnicodeDecodeError):
        return ConfigError("not UTF-8 text", _file_being_read(error), "save it as UTF-8")
    if isinstance(error, RuntimeError) and 'Could not detect "srun"' in str(error):  # submitit's
        return ConfigError("this machine has no Slurm", "launcher", "start where srun is, or choose another launcher")
    if isinstance(error, OSError) and error.filename is not None and not _is_config(error.filename):
        what = f"the run's folder cannot be made ({error.strerror})"
        return ConfigError(what, str(error.filename), "start in a folder of yours, or set hydra.run.dir=FOLDER")
    if isinstance(error, ValueError) and str(error).startswith(
        ("Invalid defaults list", "Unsupported type in defaults")
    ):
        return ConfigError(str(error).splitlines()[0], "", "write '- group: option' a line below 'defaults:'")
    if isinstance(error, ValueError) and str(error).startswith("Config group override"):
        return _no_option_name()
    if isinstance(error, OverflowError):
        found = re.search(r"full_key: (\S+)", str(error))
        return ConfigError("the number is too large", found.group(1) if found else "", "give a smaller one")
    return _of_hydras_code(error)


def _no_option_name() -> ConfigError:
    return ConfigError("a group takes the name of an option", "", "write e.g. loss=mpo, or loss.beta=0.1 for a value")


def _of_hydras_code(error: BaseException) -> ConfigError | None:
    """An exception that Hydra or a library below it trips over, at a value or file that it does not expect."""
    if not isinstance(error, (TypeError, ValueError, AttributeError, AssertionError, KeyError, RecursionError)):
        return None
    frames = list(traceback.walk_tb(error.__traceback__))
    modules = [str(frame.f_globals.get("__name__")) for frame, _ in frames]
    if not modules or modules[-1].partition(".")[0] not in COMPOSERS or "mpo.pipeline.runner" in modules:
        return None
    if modules[-1] == "hydra._internal.defaults_list":
        return _no_option_name()
    explained = _first_line(error) if str(error) else type(error).__name__
    return ConfigError(f"the command line cannot be composed: {explained}", "", "see python -m mpo.run --help")


def _is_config(name: object) -> bool:
    """Whether an error's file is a configuration that is there, and not one of the run's folder."""
    return str(name).endswith((".yaml", ".yml")) and "/.hydra/" not in str(name) and os.path.exists(str(name))


def _named_file(text: str) -> tuple[str | None, str]:
    """The file that Hydra names in front of what it has to say, and that."""
    found = re.match(r"In '([^']+)': ", text)
    return (found.group(1), text[found.end() :]) if found else (None, text)


def _in_file(explained: ConfigError, file: str, text: str) -> ConfigError:
    """The same mistake, said to be in ``file``: not of the command line, nor of a file that lacks its package line."""
    package = file.partition("/")[0]
    if f"@{package}." in text or (explained.where.partition(".")[0] == package and package not in groups()):
        return ConfigError("its keys lie below its folder's name", file, "begin it with '# @package _global_'")
    return ConfigError(explained.what, f"{file}: {explained.where}" if explained.where else file, explained.remedy)


def _file_being_read(error: UnicodeDecodeError) -> str:
    """Hydra's reader knows the file's name, its exception does not."""
    names = [frame.f_locals.get("full_path") for frame, _ in traceback.walk_tb(error.__traceback__)]
    return next((str(name) for name in names if name), "a configuration file")


def _unknown_option(error: MissingConfigException) -> ConfigError:
    found = re.search(r"Could not (?:find|load) '([^']+)'", str(error))
    path = found.group(1) if found else str(error.missing_cfg_file)
    group, _, option = path.rpartition("/")
    valid = error.options or options(group)
    if not group:
        return ConfigError(f"there is no config '{path}'", "", hint(path, valid))
    return ConfigError(f"'{option}' is not an option", group, hint(option, valid))


def _of_composition(text: str) -> ConfigError:
    """Mistakes that only Hydra knows, by the beginning of its message."""
    quoted = re.search(r"'([^']+)'", text)
    name = quoted.group(1) if quoted else ""
    if "Ambiguous value" in text:
        whole = "" if name.partition("=")[0] in groups() else ", or write key=[a,b] for a list"
        return ConfigError("several values", f"'{name}'", f"add -m to run each{whole}")
    if "No match in the defaults list" in text:
        return ConfigError("no such group", name, hint(name, groups()))
    if "Could not override" in text:
        return ConfigError("no such key", name, hint(name, _root_names()))
    if repeated := re.search(r"Multiple values for (\S+?)\. ", text):
        group = repeated.group(1)
        remedy = f"write {group}=option without a plus sign, in a file '- override /{group}: option'"
        return ConfigError("already chosen", group, remedy)
    if found := re.match(r"Could not delete from config\. The value of '(.+)' is .* and not", text):
        return ConfigError("has another value", found.group(1), f"write ~{found.group(1)} to remove it")
    if found := re.match(r"Could not delete from config\. '(.+)' does not exist", text):
        return ConfigError("no such key", found.group(1), "leave it out")
    if found := re.match(r"Could not append to config\. An item is already at '(.+)'", text):
        return ConfigError("is there already", found.group(1), f"write {found.group(1)}=… without a plus sign")
    if "force-add of config groups" in text:
        return ConfigError("a group takes no plus signs", f"'{name}'", f"write {name.lstrip('+')}")
    return ConfigError(text.splitlines()[0], "", "see python -m mpo.run --help")


def _of_key(error: OmegaConfBaseException) -> ConfigError:
    where = str(error.full_key or "").replace(_OF_GROUPS, "")
    key = str(error.key)
    if isinstance(error, MissingMandatoryValue):
        return ConfigError("has no value", where, f"give one: {where}=…")
    if isinstance(error, ValidationError):
        return _wrong_type(error, where, key)
    if isinstance(error, InterpolationKeyError):
        return ConfigError(_first_line(error), where, "name a key that exists, or escape it: \\${…}")
    if isinstance(error, InterpolationResolutionError):
        return ConfigError(_first_line(error), where, "give the value itself, or set the variable")
    if isinstance(error, (ConfigKeyError, ConfigAttributeError)):
        parent = error.parent_node
        siblings: Iterable[Any] = parent.keys() if isinstance(parent, DictConfig) else ()
        if where.startswith("score.options."):  # which may hold whatever the function takes
            return ConfigError("no such key", where, f"add it with a plus sign: +{where}=…")
        return ConfigError("no such key", where, hint(key, _root_names() if where == key else map(str, siblings)))
    return ConfigError(_first_line(error), where, "see python -m mpo.run --help")


def _wrong_type(error: ValidationError, where: str, key: str) -> ConfigError:
    group = re.match(r"Merge error: \w+ is not a subclass of \w+\. value: (.*)", str(error))
    if group and not where:  # OmegaConf doesn't say which
        return ConfigError(f"{group.group(1)!r} is not a group of keys", where, "give its keys one by one: a.b=value")
    value = getattr(error, "value", None)
    owner = error.object_type
    known = get_type_hints(owner) if isinstance(owner, type) and hasattr(owner, "__dataclass_fields__") else {}
    if key in known:
        wanted = expected(known[key])
    else:
        wanted = "a number" if "Float" in str(error) else "a whole number" if "Integer" in str(error) else "this type"
    given = "null" if value is None else repr(value)
    return ConfigError(f"{given} does not fit", where, f"give {wanted}")


def _first_line(error: BaseException) -> str:
    return str(error).splitlines()[0]


def _root_names() -> list[str]:
    return sorted({*groups(), *RunConfig.__dataclass_fields__})
