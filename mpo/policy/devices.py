"""Which device a process computes on, and how it meets the others of its group."""

from __future__ import annotations

import os
from typing import Any, TypeVar

import torch
from torch import distributed as dist

T = TypeVar("T")


def join_group() -> torch.device:
    """Join the group that the launcher's environment describes, if it has several processes; returns the device."""
    if torch.cuda.is_available():
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(device)
    else:
        device = torch.device("cpu")
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and not dist.is_initialized():
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    return device


def broadcast_from_rank0(value: T) -> T:
    """The first process's value, in its whole group: over a network another machine's view of a folder may be older."""
    values = [value]
    if dist.is_initialized() and dist.get_world_size() > 1:
        dist.broadcast_object_list(values, src=0)
    return values[0]


def place_in_group() -> tuple[int, int]:
    """This process's rank, and how many there are."""
    return (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)


def gathered_from_all(value: T) -> list[T]:
    """Every process's value, by rank."""
    _, size = place_in_group()
    values: list[Any] = [value] * size
    if size > 1:
        dist.all_gather_object(values, value)
    return values
