"""DeepSpeed's set-up: how it is imported, its processes, its configuration, and weights in shards."""

from __future__ import annotations

import os
import socket
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import distributed as dist
from torch import nn

from mpo.config.training import Offload, Precision, TrainConfig
from mpo.errors import ConfigError
from mpo.planning.buckets import bucket_elements
from mpo.policy.sequence_parallel import SequenceShares
from mpo.train.files import load_tensors

if not torch.cuda.is_available():
    os.environ.setdefault("DS_ACCELERATOR", "cpu")  # else DeepSpeed searches, and warns that it found nothing

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import deepspeed
    from deepspeed.runtime import bf16_optimizer
    from deepspeed.runtime.checkpoint_engine.torch_checkpoint_engine import TorchCheckpointEngine
    from deepspeed.runtime.fp16.loss_scaler import LossScaler
    from deepspeed.runtime.zero.config import ZeroStageEnum
    from deepspeed.sequence.layer import DistributedAttention
    from deepspeed.utils import logger as deepspeed_logger
    from deepspeed.utils.tensor_fragment import fragment_address

deepspeed_logger.setLevel("ERROR")
bf16_optimizer.see_memory_usage = lambda message, force=False: None  # else it prints, whatever the logger's level
# In checkpoints by its value, as Python pickles it from 3.11.4 on; before that by `getattr`, which is not read back.
ZeroStageEnum.__reduce_ex__ = lambda stage, protocol: (ZeroStageEnum, (stage.value,))
warnings.filterwarnings("ignore", "`torch.distributed", FutureWarning)  # collectives that DeepSpeed calls by old names
if not torch.cuda.is_available():
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False  # else it compiles C++ first; gloo does it

Keep = Callable[[object, str], None]
"""Gets a value of a checkpoint, and the name of its file there, before training changes the value in place."""


def single_process_environment() -> dict[str, str]:
    """What a launcher would set for a group of one process."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    group = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0"}
    return group | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}


def init_process_group() -> None:
    """Join the process group that RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and MASTER_PORT describe."""
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    if not dist.is_initialized():
        dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    deepspeed.init_distributed(verbose=False)


def sequence_shares(processes: int) -> SequenceShares:
    """This process among as many neighbours by rank, which forward a row together. All processes of the group take
    part.

    Raises:
        ConfigError: they do not divide the group.
    """
    if processes == 1:
        return SequenceShares()
    rank, size = dist.get_rank(), dist.get_world_size()
    if size % processes:
        what = f"groups of {processes} processes cannot be made of {size}"
        raise ConfigError(what, "train.sequence_parallel", "choose a divisor")
    groups = [dist.new_group(range(first, first + processes)) for first in range(0, size, processes)]
    mine = groups[rank // processes]
    exchange = DistributedAttention(lambda query, key, value, attend: attend(query, key, value), mine, 2, 1)
    return SequenceShares(mine, exchange)


def deepspeed_config(config: TrainConfig, stage: int, parameters: int, hidden: int) -> dict[str, Any]:
    """DeepSpeed's configuration. Accumulation is ours, so DeepSpeed sees one micro-batch per step."""
    bucket = bucket_elements(parameters)
    zero: dict[str, Any] = {"stage": stage, "reduce_bucket_size": bucket}
    if stage == 3:
        zero |= {"stage3_prefetch_bucket_size": bucket // 2}
        zero |= {"stage3_param_persistence_threshold": 10 * hidden}
        if config.zero_hpz:
            zero |= {"zero_hpz_partition_size": int(os.environ["LOCAL_WORLD_SIZE"])}
    offload = config.settled.offload
    if offload is not Offload.none:
        zero["offload_optimizer"] = {"device": "cpu", "pin_memory": torch.cuda.is_available()}
    if offload is Offload.parameters:
        zero["offload_param"] = {"device": "cpu", "pin_memory": torch.cuda.is_available()}
    bf16 = config.precision is Precision.bf16
    return {
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 1,
        "gradient_clipping": config.clip if stage > 0 else 0.0,
        "zero_optimization": zero,
        "zero_force_ds_cpu_optimizer": False,  # torch's AdamW: DeepSpeed's own needs a compiler at run time
        # In stage 1 a gradient is added to its float32 sum, and freed, as soon as it is there.
        "bf16": {"enabled": bf16, "immediate_grad_update": bf16 and stage == 1},
        # Summed in float32 over micro-batches and over processes.
        "data_types": {"grad_accum_dtype": "fp32"} if bf16 else {},
        "communication_data_type": "fp32",
        "steps_per_print": 10**12,
    }


def spread(module: nn.Module, zero: dict[str, Any], dtype: torch.dtype) -> None:
    """Leave each process of the group its shard of every parameter, on its device: ZeRO-3's way of holding a model.

    One parameter after the other, and of a model that transformers has loaded without converting it the host's tensors
    are its files' pages, which all processes share: neither a card nor the host holds a copy for each process.

    Args:
        zero: DeepSpeed's configuration.
    """
    device = torch.device(deepspeed.get_accelerator().current_device_name())
    first: nn.Parameter | None = None
    for parameter in module.parameters():
        if parameter.device == device:  # what the first process broadcasts shall not be written to a file's pages
            parameter.data = parameter.data.clone()
        if first is None:
            alone = nn.ParameterList([parameter])
            first = parameter
            deepspeed.zero.Init(module=alone, config_dict_or_path=zero, dtype=dtype)
        else:
            first.convert_to_zero_parameters(param_list=[parameter])  # type: ignore[attr-defined]
    for part in module.modules():
        for name, buffer in part.named_buffers(recurse=False):
            setattr(part, name, buffer.to(device))


def initialize(**arguments: Any) -> Any:
    """DeepSpeed's engine, in a process group that is there."""
    return deepspeed.initialize(**arguments, dist_init_required=False)[0]


@contextmanager
def gathered(parameters: list[nn.Parameter]) -> Iterator[None]:
    """Make parameters whole that ZeRO-3 has spread over processes; others are whole already."""
    spread = [parameter for parameter in parameters if hasattr(parameter, "ds_id")]
    with deepspeed.zero.GatheredParameters(spread, enabled=bool(spread)):
        yield


class CheckpointFiles(TorchCheckpointEngine):  # type: ignore[misc]  # DeepSpeed is untyped
    """DeepSpeed's files of a checkpoint: another one writes them, and none that can run code is read."""

    keep: Keep

    def makedirs(self, path: str, exist_ok: bool = False) -> None:
        """Nothing: whoever writes a file makes its folder."""

    def save(self, state_dict: Any, path: str) -> None:
        self.keep(state_dict, str(Path(path)))

    def load(self, path: str, map_location: Any = None) -> Any:
        return load_tensors(Path(path), (ZeroStageEnum, LossScaler, fragment_address), map_location)
