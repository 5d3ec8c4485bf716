"""Whether a partition fits the responses that a run will have, before anything is read or sampled. No torch."""

from __future__ import annotations

from mpo.config.schema import RunConfig
from mpo.config.targets import OWN
from mpo.errors import ConfigError, UserError
from mpo.partition import BestVsChosen, Given, KBin, Partition, Shape, TopBottom
from mpo.pipeline.needs import responses_a_set, samples
from mpo.score.model_folder import read_model_config


def check_partition(config: RunConfig, partition: Partition) -> None:
    """Raise ConfigError for a partition of the user's own that does not work, for one that asks for more responses than
    a set has, and for one whose encoder is not there."""
    _check_own(partition)
    _check_responses(config, partition)
    if partition.needs_embeddings:
        _check_encoder(config, partition)


def _check_own(partition: Partition) -> None:
    """Try a partition of the user's own on one set, before anything is built for it."""
    if type(partition).__module__.startswith(OWN):
        return
    name = type(partition).__name__
    if not isinstance(getattr(partition, "shape", None), Shape):
        raise ConfigError(f"{name} says no shape", "partition", "give it one: shape: ClassVar[Shape] = Shape.two")
    try:
        partition.keeps(4)
    except UserError:
        raise
    except Exception as error:
        raise ConfigError(f"{name}.assign raised {type(error).__name__}: {error}", "partition", "fix it") from error


def _check_encoder(config: RunConfig, partition: Partition) -> None:
    if config.regime.imitate is not None:
        what = f"regime {config.regime.name} trains on single responses, of which there are no clusters"
        raise ConfigError(what, "partition", "leave it out, or choose another regime")
    path = vars(partition).get("path")
    if not isinstance(path, str):
        raise ConfigError("names no encoder", "partition.path", "give a folder or hub name")
    found = read_model_config(path, "partition.path")
    if found is not None and found.get("is_encoder_decoder") is True:
        what = f"model type {found.get('model_type')} has a decoder too"
        raise ConfigError(what, "partition.path", "name an encoder")


def _check_responses(config: RunConfig, partition: Partition) -> None:
    k = responses_a_set(config)
    source = "sample.n" if samples(config) else "data.expected_responses"
    if isinstance(partition, Given) and samples(config):
        raise ConfigError("sampled responses carry no marks", "partition", "choose one that reads scores, e.g. mean")
    if k is None:
        return
    if isinstance(partition, TopBottom) and k < 2:
        raise ConfigError(f"{k} response a set ({source}) has no best and worst", source, "raise it to 2 or more")
    if isinstance(partition, TopBottom) and 2 * partition.k > k:
        raise ConfigError(f"{partition.k} best and {partition.k} worst of {k} responses ({source}) overlap",
                          "partition.k", f"lower it to {k // 2} or less")  # fmt: skip
    if isinstance(partition, BestVsChosen) and partition.k + 1 > k:
        raise ConfigError(f"the best and {partition.k} others of {k} responses ({source})", "partition.k",
                          f"lower it to {k - 1} or less" if k > 1 else f"raise {source}")  # fmt: skip
    if isinstance(partition, KBin) and partition.bins > k:
        raise ConfigError(f"{partition.bins} bins for {k} responses ({source})", "partition.bins",
                          f"lower it to {k} or less")  # fmt: skip
