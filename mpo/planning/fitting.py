"""Memory settings of a training: of those that are expected to fit, the ones that are expected to be fastest.

What is open (null) of ZeRO stage, offloading, layers that are computed again, tokens of a micro-batch and processes
that share one is tried in every combination. One fits if :mod:`mpo.planning.memory` expects it to leave :data:`SPARE`
of the memory free, with the largest micro-batch that the data's limits allow, while the weights are loaded, while the
reference is computed, where there is one, and while the policy, whose weights are whole by then, is evaluated.

Offloading comes last: the optimizer's, then the parameters'. Before that rows are split over as few processes as can
be. Among the others the cost of a step decides, in FLOPs of one process: its products (computing all layers again adds
about a third, as does a set in pieces), what it exchanges with other processes (:data:`LINK`), and what a micro-batch
costs by itself (:data:`LAUNCH_TOKENS`). These are assumptions, nothing was measured on a card. Nothing here depends on
what is in the cache, so that a second run chooses the same.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import asdict, dataclass, replace
from enum import Enum

from mpo.config.training import MemorySettings, Offload, Precision, Quantization, TrainConfig
from mpo.planning.compute import step_work
from mpo.planning.data_size import DataSize
from mpo.planning.memory import (
    OUTPUTS_KEPT,
    effective_stage,
    frozen_memory,
    micro_batch_tokens,
    training_memory,
)
from mpo.planning.sizes import Architecture, adapter_parameters

SPARE = 0.1
"""Share of the memory that stays free: for CUDA's context, NCCL's buffers, fragmentation, what formulas leave out."""
CHECKPOINTING = (0, 4, 3, 2, 1)
"""What is tried for ``activation_checkpointing``: no layer, every fourth, …, all of them."""
MICRO_TOKENS = (4096, 8192, 16384, 32768, 65536)
"""What is tried for ``micro_tokens``, from ``data.max_tokens`` on, or the share of them that a process has of a row."""
LINK = {"machine": 1_000, "network": 8_000}
"""FLOPs that a card computes while it sends or receives a byte: an H100 at 40 % of its peak, between cards of one
machine (350 GB/s of NVLink) and between machines (400 Gbit/s a card). Cards that have PCIe alone lie between them."""
LAUNCH_TOKENS = 512
"""What a micro-batch costs besides its tokens (kernels too small to fill the card, waiting), in tokens."""


@dataclass(frozen=True)
class Room:
    """Memory of one process: bytes of its ``device`` (``cuda`` or ``cpu``), and of its share of the host's for what is
    offloaded there, None where that is not known."""

    device: str
    memory: int
    host: int | None = None

    @property
    def usable(self) -> int:
        """Bytes of the device without what stays free."""
        return int((1 - SPARE) * self.memory)


@dataclass(frozen=True)
class Load:
    """What is trained, and on how many processes.

    Attributes:
        processes: of the whole group, on ``nodes`` machines.
        sets: expected responses per set and mean lengths; None where they are not known.
        needs_reference: whether log-probs of a reference are computed for it.
        same_reference: whether that is the policy that the training starts from, and so held in 4 bits if that is.
        evaluate_batch: sets that are forwarded at once to evaluate the trained policy; 0: none are.
    """

    shape: Architecture
    processes: int
    nodes: int
    max_prompt_tokens: int
    max_tokens: int
    sets: DataSize | None
    needs_reference: bool = True
    same_reference: bool = True
    evaluate_batch: int = 0


class Peak(Enum):
    """When most memory is needed."""

    training = "while it trains"
    loading = "while the weights are loaded"
    reference = "for log-probs of the reference"
    evaluation = "while the policy is evaluated"


@dataclass(frozen=True)
class Fit:
    """One combination.

    Attributes:
        stage: that runs for its ZeRO stage.
        needed: bytes of the device at its ``peak``.
        training: those while it trains.
        host: those of what is offloaded.
        cost: FLOPs of a step, what takes time otherwise included.
    """

    settings: MemorySettings
    stage: int
    needed: int
    peak: Peak
    training: int
    host: int
    cost: float

    def fits(self, room: Room) -> bool:
        """Whether it leaves enough free."""
        on_host = room.host is None or self.host <= (1 - SPARE) * room.host
        return self.needed <= room.usable and on_host


@dataclass(frozen=True)
class Choice:
    """What was chosen among ``tried`` combinations, of which ``fitting`` fit; ``best``: None where none does.

    Attributes:
        smallest: that needs least of the device.
        usual: what ``train.memory=given`` would take.
    """

    best: Fit | None
    smallest: Fit
    usual: Fit
    tried: int
    fitting: int


def choose(train: TrainConfig, load: Load, room: Room) -> Choice:
    """Fill what is open of ``train``; what is not stays as it is."""
    tried = [_fit(train, one, load, room) for one in _combinations(train, load, room.device)]
    fitting = [one for one in tried if one.fits(room)]
    order = list(Offload)

    def rank(one: Fit) -> tuple[float, ...]:
        return order.index(one.settings.offload), one.settings.sequence_parallel, one.cost, one.needed

    best = min(fitting, key=rank, default=None)
    smallest = min(tried, key=lambda one: (one.needed, one.host, one.training, one.cost))
    return Choice(best, smallest, _fit(train, train.settled, load, room), len(tried), len(fitting))


def with_settings(train: TrainConfig, settings: MemorySettings) -> TrainConfig:
    """``train`` with all of them."""
    return replace(train, **vars(settings))


def _combinations(train: TrainConfig, load: Load, device: str) -> list[MemorySettings]:
    tried: dict[str, tuple[object, ...]] = {
        "zero_stage": (0, 1, 2, 3),
        "offload": tuple(Offload) if device == "cuda" else (Offload.none,),
        "activation_checkpointing": CHECKPOINTING,
    }
    given, found = asdict(train.settled), []
    for together in _together(load) if "sequence_parallel" in train.open else [train.settled.sequence_parallel]:
        least = -(-load.max_tokens // together)
        tried["micro_tokens"] = tuple(budget for budget in MICRO_TOKENS if budget >= least) or (least,)
        tried["sequence_parallel"] = (together,)
        values = [tried[name] if name in train.open else (value,) for name, value in given.items()]
        found += [MemorySettings(**dict(zip(given, one, strict=True))) for one in itertools.product(*values)]  # type: ignore[arg-type]
    return [one for one in found if _runs(train, one, load)] or [train.settled]


def _together(load: Load) -> list[int]:
    """Processes that may share a row: down to :data:`MICRO_TOKENS`' least of the longest one for each."""
    found, processes = [1], 2
    while load.processes % processes == 0 and load.shape.heads % processes == 0:
        if processes * MICRO_TOKENS[0] >= 2 * load.max_tokens:
            break
        found.append(processes)
        processes *= 2
    return found


def _runs(train: TrainConfig, settings: MemorySettings, load: Load) -> bool:
    """Whether the combination is allowed, and not another one under a second name."""
    least = {Offload.none: 0, Offload.optimizer: 1, Offload.parameters: 3}[settings.offload]
    if settings.zero_stage < least:
        return False
    if "zero_stage" not in train.open:
        return True
    if settings.zero_stage == 3 and train.lora is not None and train.lora.quantization is not None:
        return False  # which spreads no weights in 4 bits
    stage = effective_stage(with_settings(train, settings), settings.zero_stage, load.processes)
    return stage == settings.zero_stage and not (train.reward_prompts and stage == 3)


def _fit(train: TrainConfig, settings: MemorySettings, load: Load, room: Room) -> Fit:
    train, shape, device = with_settings(train, settings), load.shape, room.device
    tokens, prompt, outputs = _largest(train, load)
    outputs = outputs if device == "cpu" else 0
    planned = training_memory(shape, train, load.processes, tokens, prompt, outputs, device=device, nodes=load.nodes)
    peaks = {
        # Without a card a checkpoint's copy would be the largest part; where it is too much, it need not be made.
        Peak.training: planned.device - planned.checkpoint + (planned.host if device == "cpu" else 0),
        Peak.loading: planned.loading + planned.libraries,
    }

    together = settings.sequence_parallel

    def forwarded(at_once: int, held: Quantization | None) -> int:
        return frozen_memory(shape, train.precision, at_once, device, held, load.processes, room.memory, together)

    if load.needs_reference:
        held = train.lora.quantization if train.lora is not None and load.same_reference else None
        peaks[Peak.reference] = forwarded(tokens, held)
    if load.evaluate_batch:
        most = _most_tokens(load, load.evaluate_batch, settings.row_tokens)
        peaks[Peak.evaluation] = forwarded(most, None)
    peak = max(peaks, key=lambda one: peaks[one])
    needed, training, cost = peaks[peak], peaks[Peak.training], _cost(train, planned.stage, load)
    return Fit(settings, planned.stage, needed, peak, training, planned.host, cost)


def _largest(train: TrainConfig, load: Load) -> tuple[int, int, int]:
    """What :func:`mpo.planning.memory.training_memory` takes for the largest micro-batch that there can be: ``tokens``,
    ``prompt`` and ``outputs``."""
    budget = train.settled.row_tokens
    of_set = _largest_set(load, budget)
    share = -(-train.global_batch * train.settled.sequence_parallel // load.processes)
    tokens = _most_tokens(load, min(train.micro_batch, share), budget)
    if of_set <= budget:
        return tokens, 0, 0
    kept = OUTPUTS_KEPT[train.precision] * budget
    return tokens, load.max_prompt_tokens, kept if load.sets is None else min(of_set, kept)


def _most_tokens(load: Load, sets: int, budget: int) -> int:
    """Tokens of the largest forward pass over so many sets, within the budget; one response at least."""
    return max(load.max_tokens, min(budget, sets * _largest_set(load, budget)))


def _largest_set(load: Load, budget: int) -> int:
    """Tokens of the largest set; more than the budget where responses per set are not known."""
    return budget + 1 if load.sets is None else load.sets.responses * load.max_tokens


def _cost(train: TrainConfig, stage: int, load: Load) -> float:
    longest = DataSize(train.global_batch, 1, load.max_prompt_tokens, load.max_tokens - load.max_prompt_tokens)
    sets = load.sets or longest
    tokens = min(train.global_batch, sets.sets) / load.processes * sets.tokens / sets.sets
    at_once = micro_batch_tokens(train, sets.prompt_tokens, sets.response_tokens, sets.responses)
    together = train.settled.sequence_parallel
    micro_batches = max(1.0, tokens * together / at_once)
    flops = step_work(load.shape, train, sets, load.processes).flops
    link = LINK["machine" if load.nodes == 1 else "network"]
    launches = micro_batches * LAUNCH_TOKENS / tokens * flops
    exchanged, nearby = _exchanged(train, stage, load, micro_batches)
    shared = LINK["machine" if together * load.nodes <= load.processes else "network"] * _heads_bytes(train, load.shape)
    return flops + launches + link * exchanged + LINK["machine"] * nearby + tokens * shared


def _heads_bytes(train: TrainConfig, shape: Architecture) -> float:
    """Bytes that a process sends of each of its tokens of a row that it shares: q, k, v and attention's output in every
    layer, forwards, once more where the layer is computed again, and their gradients."""
    together, width = train.settled.sequence_parallel, 2 if train.precision is Precision.bf16 else 4
    heads = 2 * shape.heads + 2 * math.lcm(shape.kv_heads, together)
    passes = 2 * shape.layers + shape.recomputed(train.settled.activation_checkpointing)
    return passes * heads * shape.head_dim * width * (together - 1) / together


def _exchanged(train: TrainConfig, stage: int, load: Load, micro_batches: float) -> tuple[float, float]:
    """Bytes that a process exchanges in a step: gradients in float32, once per step below stage 2 and once per
    micro-batch from there on; weights once per step, in stage 3 twice per micro-batch. The second number are those of
    them that with ``train.zero_hpz`` stay within a machine."""
    if load.processes == 1:
        return 0.0, 0.0
    width = 2 if train.precision is Precision.bf16 else 4
    trained = load.shape.parameters if train.lora is None else adapter_parameters(load.shape, train.lora)
    weights = (trained if train.lora is None else trained + load.shape.parameters) * width
    if stage == 3:
        nearby = weights if train.zero_hpz else 0
        return micro_batches * (4 * trained + 2 * weights - nearby), micro_batches * nearby
    if stage == 2:
        return micro_batches * 4 * trained + trained * width, 0.0
    return 2 * 4 * trained + (trained * width if stage == 1 else 0), 0.0
