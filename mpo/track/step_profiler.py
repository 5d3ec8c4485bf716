"""PyTorch's profiler around a few optimizer steps of a training, and the ranges that its trace is read by."""

from __future__ import annotations

import gzip
import shutil
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from types import TracebackType

import torch
from torch.autograd import profiler as autograd_profiler
from torch.profiler import ProfilerActivity, profile, record_function, schedule

from mpo.track.profile import TRACE_FILE
from mpo.track.trace_parts import RANGE, STEP

SKIPPED, RECORDED = 2, 3
"""Steps of a process that warm up (kernels are compiled, memory is taken), and those that are recorded after them."""
_UNFINISHED = "tmp-trace.json"
_NOTHING: AbstractContextManager[object] = nullcontext()


def span(name: str) -> AbstractContextManager[object]:
    """A range of the trace; while nothing is recorded this looks at a flag and does nothing else."""
    return record_function(RANGE + name) if autograd_profiler._is_profiler_enabled else _NOTHING


class StepProfiler:
    """Records some of a process's optimizer steps: the third to the fifth, earlier ones where there are fewer.

    A context manager: a training that ends while steps are recorded keeps those that it has.

    Args:
        folder: gets the trace, whole or not at all.
        steps: that this process will do; 0 records nothing.
        device: that it trains on; on CUDA kernels are recorded too, which has not been run on a card yet.
        on_warning: gets a line if the trace cannot be written.
    """

    def __init__(self, folder: Path, steps: int, device: torch.device, on_warning: Callable[[str], None]) -> None:
        self._folder, self._on_warning = folder, on_warning
        recorded = min(RECORDED, max(steps - SKIPPED, min(steps, 1)))
        self._skipped = min(SKIPPED, steps - recorded)
        self._warms_up = min(1, self._skipped)
        self._left, self._done = recorded, 0
        self._activities = [ProfilerActivity.CPU] + ([ProfilerActivity.CUDA] if device.type == "cuda" else [])
        self._profile: profile | None = None
        if steps:
            (folder / _UNFINISHED).unlink(missing_ok=True)  # of a process that was killed while it wrote

    def __enter__(self) -> StepProfiler:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()

    @contextmanager
    def step(self, number: int) -> Iterator[None]:
        """Around optimizer step ``number``, from 1."""
        if self._left and self._profile is None and self._done == self._skipped - self._warms_up:
            self._start()
        with span(STEP.removeprefix(RANGE) + str(number)):
            yield
        self._done += 1
        if self._profile is not None:
            self._profile.step()
            if self._done > self._skipped:
                self._left -= 1
                if not self._left:
                    self._stop()

    def _start(self) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a training of one step, that nothing warms up
            plan = schedule(wait=0, warmup=self._warms_up, active=self._left, repeat=1)
            self._profile = profile(activities=self._activities, schedule=plan, on_trace_ready=self._write)
            self._profile.start()

    def _stop(self) -> None:
        if self._profile is not None:
            self._profile.stop()
            self._profile = None

    def _write(self, recorded: profile) -> None:
        if self._done <= self._skipped:  # it ended, or failed, before a step was recorded
            return
        plain, packed = self._folder / _UNFINISHED, self._folder / f"{_UNFINISHED}.gz"
        try:
            recorded.export_chrome_trace(str(plain))
            with plain.open("rb") as source, gzip.open(packed, "wb", compresslevel=5) as target:
                shutil.copyfileobj(source, target)
            packed.rename(self._folder / TRACE_FILE)
        except OSError as error:  # the training needs no trace
            self._on_warning(f"train.profile: the trace was not written: {error.strerror or error}")
        finally:
            plain.unlink(missing_ok=True)
            packed.unlink(missing_ok=True)
