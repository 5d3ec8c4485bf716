"""What a loss gives back is of the type and shape that its contract says; nothing here waits for a device."""

from __future__ import annotations

import torch
from torch import Tensor

from mpo.errors import ConfigError

KEY = "loss"


def check_values(what: str, values_B: object, sets: int) -> None:
    """Raise ConfigError unless ``values_B`` is a float tensor of a number for each of ``sets`` sets."""
    if not isinstance(values_B, Tensor):
        found = f"{what} is of type {type(values_B).__name__}"
    elif tuple(values_B.shape) != (sets,) or not values_B.is_floating_point():
        found = f"{what} has shape {list(values_B.shape)} and {values_B.dtype}"
    else:
        return
    raise ConfigError(f"{found}, for {sets} sets", KEY, "return a float tensor [B], a number for each set")


def check_keep(what: str, keep_B: object, sets: int) -> None:
    """Raise ConfigError unless ``keep_B`` is a bool tensor of a mark for each of ``sets`` sets."""
    if not isinstance(keep_B, Tensor):
        found = f"{what} is of type {type(keep_B).__name__}"
    elif tuple(keep_B.shape) != (sets,) or keep_B.dtype != torch.bool:
        found = f"{what} has shape {list(keep_B.shape)} and {keep_B.dtype}"
    else:
        return
    raise ConfigError(f"{found}, for {sets} sets", KEY, "return a bool tensor [B], a mark for each set")
