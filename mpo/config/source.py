"""The source that a configuration's ``data`` group describes. No torch."""

from __future__ import annotations

from collections.abc import Sequence

from mpo.config.files import DATA_SUFFIXES, check_data, is_local
from mpo.config.schema import DataConfig
from mpo.config.targets import build
from mpo.config.texts import check_path
from mpo.data.sources.base import Source
from mpo.data.sources.mixture import Mixture
from mpo.data.sources.reader import SourceSpec
from mpo.data.sources.recorded import Recorded
from mpo.errors import ConfigError
from mpo.failures.user_code import user_code

KEY = "data.source"


def source_of(data: DataConfig, allow: Sequence[str]) -> Source:
    """The source; nothing of it is read.

    Raises:
        ConfigError: it is neither a name nor the node of a source class.
    """
    if isinstance(data.source, dict):
        return build(data.source, Source, allow, KEY)  # type: ignore[type-abstract]
    if not isinstance(data.source, str):
        raise ConfigError(f"{data.source!r} is no source", KEY, "give a file, a hub name, or _target_ and its options")
    spec = SourceSpec(data.source, data.layout, data.split, data.revision, data.score_field)
    return Recorded(spec, data.heldout_source, data.heldout_split)


def check_source(source: Source) -> None:
    """What the source itself finds wrong, before anything is read."""
    with user_code(type(source).__module__, type(source).__name__, KEY):
        source.check()


def check_source_keys(data: DataConfig, source: Source) -> None:
    """Raise ConfigError for keys of the group that do not apply to this kind of source, ConfigError or DataError for a
    mixture's file that cannot be one."""
    if isinstance(source, Recorded):
        if data.heldout_split is not None and data.heldout_source is None and is_local(str(data.source), DATA_SUFFIXES):
            raise ConfigError("a file has no splits", "data.heldout_split", "give data.heldout_source=FILE")
        return
    if isinstance(source, Mixture):
        _check_mixture_keys(data)
        for key, path in source.reads.items():
            check_path(key, path)
            check_data(path, key)
        return
    for key in ("heldout_source", "heldout_split", "score_field", "revision"):
        if getattr(data, key) is not None:
            what = f"'{source.name}' is no file or hub name, but a class"
            raise ConfigError(what, f"data.{key}", "leave it out; options of the class stand below data.source")


def _check_mixture_keys(data: DataConfig) -> None:
    default = DataConfig()
    for key in ("layout", "split", "revision", "score_field", "limit"):
        if getattr(data, key) != getattr(default, key):
            remedy = f"write it below {KEY}.parts.NAME"
            raise ConfigError("each part of a mixture has its own", f"data.{key}", remedy)
    for key in ("heldout_source", "heldout_split"):
        if getattr(data, key) is not None:
            remedy = f"write {KEY}.heldout={{path: FILE, split: …}}"
            raise ConfigError("a mixture names its held-out sets beside its parts", f"data.{key}", remedy)
