"""Rules for how a training lies on its processes: batches, ZeRO, the compiler, weights in 4 bits. No torch."""

from __future__ import annotations

import os
from importlib.util import find_spec
from shutil import which

from mpo.config.schema import LauncherConfig, RunConfig
from mpo.config.training import MemoryChoice, Offload, TrainConfig
from mpo.errors import ConfigError


def check_training(key: str, train: TrainConfig, config: RunConfig) -> None:
    """Raise ConfigError for values that contradict each other, the launcher's, or what is installed.

    Args:
        key: of the training, ``train`` or ``model.scratch.sft``.
    """
    _check_sequence_parallel(key, train, config)
    _check_batch(key, train, config)
    _check_quantization(key, train, config.dry_run)
    _check_sharding(key, train)
    _check_second_copy(key, train, config.launcher)
    _check_compiler(key, train)


def _check_sequence_parallel(key: str, train: TrainConfig, config: RunConfig) -> None:
    together, processes = train.settled.sequence_parallel, config.launcher.processes * config.launcher.nodes
    if processes % together:
        what = f"groups of {together} processes cannot be made of {processes}"
        raise ConfigError(what, f"{key}.sequence_parallel", "choose a divisor, or change launcher.processes")
    heads = config.model.architecture.get("num_attention_heads")
    if heads and heads % together:
        what = f"{together} processes cannot share {heads} heads of attention"
        raise ConfigError(what, f"{key}.sequence_parallel", "choose a divisor")


def _check_batch(key: str, train: TrainConfig, config: RunConfig) -> None:
    together = train.settled.sequence_parallel
    processes = config.launcher.processes * config.launcher.nodes // together

    def fits(size: int, micro_batch: int) -> bool:
        share, rest = divmod(size, processes)  # a process whose share is below micro_batch takes it at once
        return size > 0 and rest == 0 and (share <= micro_batch or share % micro_batch == 0)

    if fits(train.global_batch, train.micro_batch):
        return
    window = train.micro_batch * processes
    below = next((n for n in range(train.global_batch, 0, -1) if fits(n, train.micro_batch)), None)
    above = next(n for n in range(train.global_batch, train.global_batch + window + 1) if fits(n, train.micro_batch))
    sizes = " or ".join(str(size) for size in (below, above) if size is not None)
    micro = [size for size in range(1, train.micro_batch) if fits(train.global_batch, size)]
    other = f", or {key}.micro_batch={micro[-1]}" if micro else ""
    what = f"{train.global_batch} cannot be shared out as micro-batches of {train.micro_batch} on {processes} "
    what += "processes" if together == 1 else f"groups of {together} processes"
    raise ConfigError(what, f"{key}.global_batch", f"the nearest that fit are {sizes}{other}")


def _check_sharding(key: str, train: TrainConfig) -> None:
    stage = train.settled.zero_stage
    if train.memory is MemoryChoice.auto and train.zero_stage is None:
        return  # one that goes with it is chosen
    if train.offload is Offload.parameters and stage != 3:
        raise ConfigError(f"parameters are offloaded by ZeRO stage 3, not {stage}", f"{key}.offload",
                          f"add {key}.zero_stage=3, or offload=optimizer")  # fmt: skip
    if train.offload is Offload.optimizer and stage < 1:
        raise ConfigError("the optimizer is offloaded by ZeRO stage 1, 2 or 3, not 0", f"{key}.offload",
                          f"add {key}.zero_stage=1")  # fmt: skip


def _check_second_copy(key: str, train: TrainConfig, launcher: LauncherConfig) -> None:
    if not train.zero_hpz:
        return
    chosen = train.memory is MemoryChoice.auto and train.zero_stage is None  # another one may be
    if chosen or train.settled.zero_stage != 3:
        what = "only ZeRO stage 3 has weights in shards to keep a second copy of"
        raise ConfigError(what, f"{key}.zero_hpz", f"add {key}.zero_stage=3, or leave it out")
    if launcher.nodes == 1 or launcher.processes == 1:
        what = f"{launcher.nodes} × {launcher.processes} processes have no machines to gather weights within"
        raise ConfigError(what, f"{key}.zero_hpz", "it is for several machines with several processes each")


def _check_compiler(key: str, train: TrainConfig) -> None:
    if train.compile and not any(which(name) for name in (os.environ.get("CXX", ""), "g++", "clang++")):
        raise ConfigError("torch.compile finds no C++ compiler here", f"{key}.compile",
                          "install g++, name one in CXX, or leave it false")  # fmt: skip


def _check_quantization(key: str, train: TrainConfig, dry_run: bool) -> None:
    if train.lora is None or train.lora.quantization is None:
        return
    if train.settled.zero_stage == 3:
        raise ConfigError("ZeRO stage 3 does not spread weights in 4 bits", f"{key}.zero_stage", "choose 2 or less")
    if train.offload is Offload.parameters:
        what = "parameters are offloaded by ZeRO stage 3, which does not spread weights in 4 bits"
        raise ConfigError(what, f"{key}.offload", "choose optimizer or none")
    if not dry_run and find_spec("bitsandbytes") is None:
        raise ConfigError("bitsandbytes is not installed", f"{key}.lora.quantization",
                          "pip install -e '.[qlora]', or give null")  # fmt: skip
