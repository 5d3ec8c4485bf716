"""Whether the marks around thoughts can be found. No torch."""

from __future__ import annotations

from mpo.config.schema import ThinkingConfig
from mpo.errors import ConfigError


def check_thinking(thinking: ThinkingConfig, scores: bool) -> None:
    """Raise ConfigError for marks of which one is missing, empty, surrounded by white space or the same as the other,
    and for a choice of what is scored or trained on without marks, or of what is scored in a run that does not score
    (``scores``)."""
    for name, mark in (("start", thinking.start), ("end", thinking.end)):
        key = f"model.thinking.{name}"
        if mark is None and (
            thinking.start is not None or thinking.end is not None or thinking.scored or not thinking.trained
        ):
            raise ConfigError("has no value, but another key of model.thinking has", key, "give both marks, or none")
        if mark is not None and (not mark or mark != mark.strip()):
            raise ConfigError(f"'{mark}' is empty or has white space around it", key, "give the mark alone")
    if thinking.start is not None and thinking.start == thinking.end:
        raise ConfigError(f"'{thinking.end}' begins a thought too", "model.thinking.end", "give another mark")
    if thinking.scored and not scores:
        what = "the run reads scores that are there already"
        raise ConfigError(what, "model.thinking.scored", "leave it out, or add regime=on_policy")
