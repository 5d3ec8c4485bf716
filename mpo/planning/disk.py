"""Disk that a run needs: token and log-prob caches, checkpoints, the exported model, downloads. All in bytes."""

from __future__ import annotations

from dataclasses import dataclass

from mpo.config.training import Precision, TrainConfig
from mpo.planning.data_size import DataSize
from mpo.planning.memory import effective_stage
from mpo.planning.sizes import Architecture, adapter_parameters

TOKEN_BYTES = 4  # int32 ids
LOGP_BYTES = 4  # float32
WIDTH = {Precision.bf16: 2, Precision.fp32: 4}  # of a weight
TEXT_BYTES = 5  # UTF-8 bytes per token of English text, with JSON around it


@dataclass(frozen=True)
class Disk:
    """Bytes by purpose; ``download`` is what a hub sends: weights and data."""

    tokens: int
    reference: int
    texts: int
    checkpoints: int
    export: int
    download: int

    @property
    def cache(self) -> int:
        """What lies under ``cache_dir``; the hub's downloads have a cache of their own."""
        return self.tokens + self.reference + self.texts + self.checkpoints + self.export


def run_disk(
    shape: Architecture,
    train: TrainConfig,
    data: DataSize,
    *,
    processes: int,
    rounds: int,
    keeps_states: bool,
    needs_reference: bool,
    downloads_model: bool,
    downloads_data: bool,
) -> Disk:
    """Disk of ``rounds`` rounds; each keeps its caches and its model, checkpoints go when a training is complete, but
    for a state that the next round goes on with (``keeps_states``)."""
    whole = checkpoint_bytes(shape, train, processes)
    # The best at each that is kept, the best so far, and one that is being written.
    policies = 0 if train.keep_best is None else train.keep_checkpoints + 2
    policy = whole if keeps_states else _trained(shape, train) * WIDTH[train.precision]
    checkpoints = (train.keep_checkpoints + 1) * whole + policies * policy + (rounds - 1) * keeps_states * whole
    return Disk(
        tokens=rounds * data.tokens * TOKEN_BYTES,
        reference=rounds * data.response_tokens_total * LOGP_BYTES if needs_reference else 0,
        texts=rounds * data.tokens * TEXT_BYTES,
        checkpoints=checkpoints if rounds else 0,
        export=rounds * export_bytes(shape, train.precision),
        download=(shape.parameters * 2 if downloads_model else 0) + (data.tokens * TEXT_BYTES if downloads_data else 0),
    )


def checkpoint_bytes(shape: Architecture, train: TrainConfig, processes: int) -> int:
    """One checkpoint of so many processes: the optimizer's state, in bf16 12 bytes per parameter (float32 master
    weight, two moments), in fp32 8, and 4 more for ZeRO's own copy of the weights from stage 1 on; below stage 3 the
    weights as well."""
    stage = effective_stage(train, train.settled.zero_stage, processes)
    states = 12 if train.precision is Precision.bf16 or stage else 8
    return _trained(shape, train) * (states + (0 if stage == 3 else WIDTH[train.precision]))


def export_bytes(shape: Architecture, precision: Precision) -> int:
    """The exported model's weights."""
    return shape.parameters * WIDTH[precision]


def _trained(shape: Architecture, train: TrainConfig) -> int:
    return shape.parameters if train.lora is None else adapter_parameters(shape, train.lora)
