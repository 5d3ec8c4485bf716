"""Profiles of a run's trainings: which there are, and why one that was asked for is not."""

from __future__ import annotations

from collections.abc import Iterable

from mpo.cache.artifacts import Store
from mpo.cache.stage import Stage
from mpo.plain import from_plain
from mpo.stages.nodes import train
from mpo.stages.summary import PROFILE, Summary
from mpo.track.profile import Profile


def profiles(stages: Iterable[Stage], store: Store) -> dict[str, Profile]:
    """By training stage, of those that are complete and were asked for one."""
    asked = [stage for stage in stages if wants_profile(stage)]
    found = {stage.name: _profile(stage, store) for stage in asked}
    return {name: profile for name, profile in found.items() if profile is not None}


def wants_profile(stage: Stage) -> bool:
    """Whether ``train.profile`` (or the starting policy's) asks for one."""
    return isinstance(stage.settings, train.Settings) and stage.settings.train.profile


def profile_warning(stage: Stage, store: Store, cached: bool) -> str | None:
    """What to say of a complete training that was not profiled now although that was asked for."""
    if not wants_profile(stage):
        return None
    if _profile(stage, store) is not None:
        if not cached:
            return None
        return f"{stage.name} is taken from the cache: its profile is that of the run which trained it"
    if cached:
        return (
            f"{stage.name} is taken from the cache, so there is nothing to profile; to train it again, change a "
            f"setting (seed=…) or remove {store.path(stage)}"
        )
    return f"{stage.name} was not profiled: its log says why, or no step was left when this run took it up"


def _profile(stage: Stage, store: Store) -> Profile | None:
    plain = Summary.read(store.path(stage)).facts[""].get(PROFILE)
    return None if plain is None else from_plain(Profile, plain)
