"""A CUDA card in name only, of which torch.compile makes kernels for real: for a process of its own.

Inductor and Triton ask a card for its properties, compile for its architecture down to machine code, and load that
into the driver. Here the answers come from a data sheet and the driver takes whatever a card of that kind could take;
nothing is launched, and all tensors are fake ones (``torch.FakeTensorMode``), with shapes and no values.
"""

from __future__ import annotations

import ctypes
import os
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any


@dataclass(frozen=True)
class Card:
    """What compilation reads of a card: compute capability, streaming multiprocessors, and what each of them has."""

    name: str
    major: int
    minor: int
    processors: int
    block_memory: int  # most bytes of shared memory that one block may take
    processor_memory: int
    threads: int = 2048  # of one multiprocessor
    registers: int = 65536

    @property
    def architecture(self) -> int:
        return 10 * self.major + self.minor


CARDS = {
    "sm_80": Card("A100", 8, 0, 108, 163 << 10, 164 << 10),
    "sm_86": Card("A10", 8, 6, 72, 99 << 10, 100 << 10, threads=1536),
    "sm_90": Card("H100", 9, 0, 132, 227 << 10, 228 << 10),
    "sm_100": Card("B200", 10, 0, 148, 227 << 10, 228 << 10),
}
"""By architecture; shared memory as the CUDA programming guide's table of compute capabilities has it."""


@dataclass(frozen=True)
class Kernel:
    """One that was compiled to machine code.

    Attributes:
        shared: bytes of shared memory that a block takes.
        stages: of its software pipeline.
        registers: of a thread.
        spilled: bytes of a thread's registers that lie in memory.
        loaded: whether the card could take it; else it was compiled once more without a pipeline, or nothing fitted.
    """

    name: str
    architecture: int
    shared: int
    stages: int
    registers: int
    spilled: int
    loaded: bool


class _Driver:
    """Triton's driver, up to the launch of a kernel."""

    def __init__(self, card: Card) -> None:
        self._card = card
        self.utils = self
        self.kernels: list[Kernel] = []

    def get_current_target(self) -> Any:
        from triton.backends.compiler import GPUTarget

        return GPUTarget("cuda", self._card.architecture, 32)

    def get_current_device(self) -> int:
        return 0

    def get_device_properties(self, device: int) -> dict[str, int]:
        return {
            "max_shared_mem": self._card.block_memory,
            "multiprocessor_count": self._card.processors,
            "max_num_regs": self._card.registers,
            "warpSize": 32,
        }

    def launcher_cls(self, source: Any, metadata: Any) -> Any:
        """Called with every kernel, before Triton looks whether the card can take it."""
        self.kernels.append(
            Kernel(metadata.name, metadata.target.arch, metadata.shared, metadata.num_stages, 0, 0, loaded=False)
        )
        return lambda *arguments, **named: None

    def load_binary(self, name: str, binary: bytes, shared: int, device: int) -> tuple[int, int, int, int, int]:
        """Module, function, registers and spilled bytes of a thread, most threads of a block."""
        registers, spilled = resources(binary)
        last = self.kernels.pop()
        assert last.name == name
        self.kernels.append(Kernel(name, last.architecture, shared, last.stages, registers, spilled, loaded=True))
        return 1, 1, registers, spilled // 4, 1024

    def unload_module(self, module: int) -> None:
        pass


def resources(binary: bytes) -> tuple[int, int]:
    """Registers and bytes of stack of a thread, as the tool that Triton comes with reads them from machine code."""
    import triton

    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(binary)
        file.flush()
        command = [str(tool), "--dump-resource-usage", file.name]
        report = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    found = re.search(r"REG:(\d+) STACK:(\d+)", report)
    assert found is not None, report
    return int(found[1]), int(found[2])


SETTINGS = {
    "TORCHINDUCTOR_COMPILE_THREADS": "1",
    "TORCHINDUCTOR_FX_GRAPH_CACHE": "0",
    "TORCHINDUCTOR_AUTOGRAD_CACHE": "0",
    "TORCHINDUCTOR_USE_STATIC_CUDA_LAUNCHER": "0",  # in C++, and past Triton's driver
    "TRITON_DEFAULT_FP_FUSION": "1",  # what it is without, but for a warning
}
"""Of torch's compiler, by environment: what a program sets holds in one thread, and autograd compiles in its own."""

_kept: list[Any] = []
"""The driver, and torch's record of the kernel that is registered here."""


def install(card: str, library: str, caches: str) -> None:
    """Let this process believe that it has ``card``. Before torch is imported.

    Args:
        library: ``fake_card.cpp``, compiled.
        caches: folder for what torch and Triton keep of what they compiled.
    """
    assert "torch" not in sys.modules  # it asks once, on import, what devices there are
    os.environ.update(SETTINGS, TORCHINDUCTOR_CACHE_DIR=f"{caches}/torch", TRITON_CACHE_DIR=f"{caches}/triton")
    ctypes.CDLL(library, mode=ctypes.RTLD_GLOBAL)
    driver = _Driver(CARDS[card])
    _kept.append(driver)
    _be_the_card(CARDS[card])
    _compile_for(driver)


def compiled_kernels() -> list[Kernel]:
    """Those since the last call, in order."""
    found = list(_kept[0].kernels)
    _kept[0].kernels.clear()
    return found


def _be_the_card(card: Card) -> None:
    """torch.cuda's answers, and autograd's."""
    import torch

    torch.Tensor.pin_memory = lambda tensor, *_: tensor  # there is no memory to pin
    properties = SimpleNamespace(
        name=card.name,
        major=card.major,
        minor=card.minor,
        multi_processor_count=card.processors,
        shared_memory_per_block=48 << 10,
        shared_memory_per_block_optin=card.block_memory,
        shared_memory_per_multiprocessor=card.processor_memory,
        max_threads_per_multi_processor=card.threads,
        max_threads_per_block=1024,
        regs_per_multiprocessor=card.registers,
        warp_size=32,
        total_memory=80 << 30,
        L2_cache_size=50 << 20,
    )
    state = torch.zeros(16, dtype=torch.uint8)
    answers: dict[str, Any] = {
        "is_available": lambda: True,
        "is_initialized": lambda: True,
        "_lazy_init": lambda: None,
        "device_count": lambda: 1,
        "current_device": lambda: 0,
        "set_device": lambda device: None,
        "_exchange_device": lambda device: 0,
        "_maybe_exchange_device": lambda device: 0,
        "synchronize": lambda device=None: None,
        "get_device_properties": lambda device=None: properties,
        "get_device_capability": lambda device=None: (card.major, card.minor),
        "get_device_name": lambda device=None: card.name,
        "get_rng_state": lambda device=None: state,
        "set_rng_state": lambda state, device=None: None,
    }
    for name, answer in answers.items():
        setattr(torch.cuda, name, answer)
    torch.cuda.random.get_rng_state = answers["get_rng_state"]
    torch.cuda.random.set_rng_state = answers["set_rng_state"]
    torch.version.cuda = "13.0"
    torch._C._cuda_getCurrentRawStream = lambda device: 0

    def silu_backward(gradient: Any, values: Any) -> Any:
        with torch._C._AutoDispatchBelowAutograd():
            return torch.ops.aten.silu_backward.default(gradient, values)

    # One kernel of a card's; a build of torch that has none for it computes it in eight steps, with a result each.
    library = torch.library.Library("aten", "IMPL")
    library.impl("silu_backward", silu_backward, "AutogradCUDA")
    _kept.append(library)


def _compile_for(driver: _Driver) -> None:
    """Inductor and Triton, up to the launch of a kernel."""
    import torch
    import triton
    from torch._dynamo import device_interface
    from torch._inductor.fx_passes import joint_graph, post_grad
    from torch._inductor.runtime import triton_helpers, triton_heuristics

    triton.runtime.driver.set_active(driver)
    triton_helpers.set_driver_to_gpu = lambda: None
    triton_heuristics.CachingAutotuner.bench = lambda self, launcher, *arguments, **named: 1.0  # all are equally fast
    device_interface.CudaInterface.get_raw_stream = staticmethod(lambda device: 0)
    # Both compute on the card: patterns of attention in other models, which are traced there, and constants.
    joint_graph.lazy_init = post_grad.lazy_init = lambda device=None: None
    joint_graph.constant_fold_uniform_value = lambda graph: None
    # What compiled functions make tensors with, in place of functions in C++ that no fake tensor goes through.
    guards = torch._C._dynamo.guards
    guards._empty_strided_cuda = lambda size, stride, dtype: torch.empty_strided(
        size, stride, dtype=dtype, device="cuda:0"
    )
    guards._reinterpret_tensor = lambda tensor, size, stride, offset=0: torch.as_strided(
        tensor, size, stride, tensor.storage_offset() + offset
    )
