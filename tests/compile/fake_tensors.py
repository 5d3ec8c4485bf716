"""Tensors on a card in name only (:mod:`tests.compile.fake_card`): shapes, types and strides, and no values.

But for what a batch says of its layout: sizes further on depend on that.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensor,
    FakeTensorMode,
    unset_fake_temporarily,
)
from torch.distributed._tools.mem_tracker import MemTracker
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.weak import WeakTensorKeyDictionary

DEVICE = torch.device("cuda", 0)


class KnownIndices(TorchDispatchMode):
    """Computes on a CPU, beside the fake tensors, whatever follows from real ones, such as a batch that is moved there.

    Where the fake tensors cannot say how large a result is, or which number, that is where it comes from. Numbers that
    nobody knows count as equal: a module that is tried on random input does what it was tried for.
    """

    def __init__(self, fake: FakeTensorMode) -> None:
        super().__init__()
        self._fake = fake
        self._values = WeakTensorKeyDictionary()

    @classmethod
    def ignore_compile_internals(cls) -> bool:
        """torch.compile goes on as if this mode were not there."""
        return True

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is torch.ops.aten.equal.default:
            return True
        given = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        made = not given and "arange" in func.name()
        if not (made or (given and all(self._is_known(tensor) for tensor in given))):
            return func(*args, **kwargs)
        with unset_fake_temporarily():
            known = func(*tree_map(self._value, args), **tree_map(self._value, kwargs))
        try:
            result = func(*args, **kwargs)
        except (DataDependentOutputException, DynamicOutputShapeException):
            return tree_map(self._on_the_card, known)
        for fake, values in zip(tree_leaves(result), tree_leaves(known), strict=True):
            if isinstance(fake, FakeTensor):
                self._values[fake] = values
        return result

    def _is_known(self, tensor: Tensor) -> bool:
        return not isinstance(tensor, FakeTensor) or tensor in self._values

    def _value(self, leaf: Any) -> Any:
        if isinstance(leaf, FakeTensor):
            return self._values[leaf]
        return torch.device("cpu") if isinstance(leaf, torch.device) else leaf

    def _on_the_card(self, leaf: Any) -> Any:
        if not isinstance(leaf, Tensor):
            return leaf
        found = self._fake.from_tensor(leaf).to(DEVICE)
        self._values[found] = leaf
        return found


class Memory(MemTracker):
    """Bytes of tensors on the card, those of compiled functions too."""

    @classmethod
    def ignore_compile_internals(cls) -> bool:
        """torch.compile goes on as if this mode were not there; what it made is seen again."""
        return True

    def _track_module_params_and_buffers(self, module: Any, install_grad_hooks: bool = True) -> tuple[int, int]:
        """Without hooks, which frozen parameters refuse, and which would only say what is a gradient."""
        return super()._track_module_params_and_buffers(module, install_grad_hooks=False)

    def _update_peak_stats(self, peak_state: Any) -> None:
        """Of all together, not of each module: that takes ten times as long."""
        for device, snapshot in self._curr_mem_snap.items():
            if self._peak_mem.get(device, 0) < snapshot["Total"]:
                self._peak_mem[device] = snapshot["Total"]
                self._peak_mem_snap[device] = dict(snapshot)

    @property
    def now(self) -> int:
        """Those that there are."""
        return int(self.get_tracker_snapshot("current")[DEVICE]["Total"])

    @property
    def peak(self) -> int:
        """Those of the moment at which there were most."""
        return int(self.get_tracker_snapshot("peak")[DEVICE]["Total"])


class _Fake(FakeTensorMode):
    """Never asks the card for a real tensor."""

    @property
    def avoid_device_init(self) -> bool:
        return True


_fake = _Fake(allow_non_fake_inputs=True)


@contextmanager
def fake_tensors() -> Iterator[None]:
    """New tensors are fake ones, and so are those that are moved to the card."""
    with _fake, KnownIndices(_fake):
        yield


@contextmanager
def plain_fake_tensors() -> Iterator[None]:
    """The same without any values: what depends on one raises."""
    with _fake:
        yield
