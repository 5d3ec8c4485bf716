"""vLLM's engine in this process: its environment, its options on a CPU, and its errors as one line. No torch."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import sys
from collections.abc import Iterator
from typing import Any

from mpo.config.training import Precision
from mpo.errors import ConfigError
from mpo.failures.libraries import IN_LOG, library_errors

DTYPES = {Precision.fp32: "float32", Precision.bf16: "bfloat16"}
CPU_CACHE_GIB = "1"
"""Keys and values on a CPU, unless VLLM_CPU_KVCACHE_SPACE says otherwise: by default half of the machine's memory."""


LOOK_AT_CLASS = """
import ctypes, runpy, signal, sys
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
runpy.run_module("vllm.model_executor.models.registry", run_name="__main__")
"""
"""How vLLM looks at a model's class in a process of its own, which would outlive a killed run by as long as it imports:
ended with the process that asks."""


def check_installed(where: str, remedy: str) -> None:
    """Raise ConfigError if there is no vLLM; ``where`` is the config key that wants it."""
    if importlib.util.find_spec("vllm") is None:
        raise ConfigError("vLLM is not installed", where, f"make install-vllm, or take {remedy}")


def load_engine(model: str, longest: int, precision: Precision, eager: bool, **options: Any) -> Any:
    """vLLM's ``LLM`` for a folder or hub name, which reads safetensors alone.

    Args:
        longest: most tokens of a request, its response included.
        eager: no captured graphs.
        options: further ones of ``LLM``.
    """
    options |= engine_options(longest, eager)
    from vllm import LLM
    from vllm.model_executor.models import registry

    registry._SUBPROCESS_COMMAND = [sys.executable, "-c", LOOK_AT_CLASS]
    return LLM(model, dtype=DTYPES[precision], max_model_len=longest, **options)


def engine_options(longest: int, eager: bool) -> dict[str, Any]:
    """Options of any engine in this process, whose environment is set; to be called before vLLM is imported."""
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"  # the engine in this process, which nothing outlives
    os.environ.setdefault("VLLM_WORKER_MULTIPROC_METHOD", "spawn")
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", CPU_CACHE_GIB)
    import torch

    on_cpu = not torch.cuda.is_available()
    options = {"load_format": "safetensors", "enforce_eager": eager or on_cpu}  # the older format is a pickle
    if on_cpu:  # a seeded request whose prompt is computed in pieces stops the CPU build
        options |= {"enable_chunked_prefill": False, "max_num_batched_tokens": max(longest, 2048)}
    return options


@contextlib.contextmanager
def in_one_line(where: str, remedy: str) -> Iterator[None]:
    """What vLLM raises as a mistake that names it; its traceback goes to the stage's log.

    Args:
        where: the config key.
        remedy: what does without vLLM.

    Raises:
        ConfigError: an exception's type and first line.
    """
    with library_errors("vLLM stopped", where, lambda error: f"{IN_LOG}; {remedy}"):
        yield
