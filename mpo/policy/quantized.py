"""Weights in 4 bits (NF4, QLoRA: arXiv 2305.14314), by bitsandbytes through transformers."""

from __future__ import annotations

import os
from typing import Any

import torch
from torch import Tensor, nn


def loading_options(dtype: torch.dtype) -> dict[str, Any]:
    """Arguments of ``from_pretrained``: linear layers but the head in 4 bits, products in ``dtype``.

    On a card they are quantised there, one at a time, which takes a CPU minutes.
    """
    from transformers import BitsAndBytesConfig

    config = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
    )
    device = f"cuda:{os.environ.get('LOCAL_RANK', '0')}" if torch.cuda.is_available() else "cpu"
    return {"quantization_config": config, "device_map": {"": device}}


def keep_gradients(lm: nn.Module) -> None:
    """Leave out the library's way of multiplying on a CPU in evaluation mode: it lets no gradient through, silently."""
    for module in lm.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False  # type: ignore[assignment]


def whole_weight(weight: Tensor) -> Tensor:
    """The values that a layer computes with: of a weight in 4 bits those that it stands for, else the weight itself."""
    state = getattr(weight, "quant_state", None)
    if state is None:
        return weight.detach()
    from bitsandbytes.functional import dequantize_4bit  # type: ignore[import-not-found]

    return dequantize_4bit(weight.data, state).detach()  # type: ignore[no-any-return]
