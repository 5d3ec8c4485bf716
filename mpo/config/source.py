"""The source that a configuration's ``data`` group describes. No torch."""

from __future__ import annotations

from collections.abc import Sequence

from mpo.config.schema import DataConfig
from mpo.config.targets import build
from mpo.data.sources.base import Source
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
