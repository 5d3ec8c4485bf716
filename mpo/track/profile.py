"""Where the time of profiled optimizer steps went: a trace of PyTorch's profiler, sorted into parts of a step.

On a CPU an operator's own time counts. On a card that of its kernels: where several run at once, computing comes before
communication and that before copies, so that shares add up and what is hidden behind computing costs nothing. What is
left of a step is time in which nothing was at work. No torch.
"""

from __future__ import annotations

import gzip
import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mpo.track.intervals import Interval, length, union, within, without
from mpo.track.trace_parts import COMMUNICATION, LAYOUT, LAYOUT_RANGE, RANGE, STEP, WAITING, named, part
from mpo.track.units import memory, percent, step_duration

TRACE_FILE = "trace.json.gz"
_HOST = ("cpu_op", "user_annotation", "cuda_runtime", "cuda_driver")
_DEVICE = ("kernel", "gpu_memcpy", "gpu_memset")


@dataclass(frozen=True, slots=True)
class Profile:
    """Some optimizer steps of one process.

    Attributes:
        steps: their numbers, from 1.
        seconds: of a step on average, under the profiler, which costs some itself.
        device: ``cpu`` or ``cuda``.
        shares: of the steps' time, by part, the largest first; they add up to 1.
        hidden_communication: share of the time in which processes exchanged data while the card computed.
        memory_bytes: the step's peak, as ``memory_bytes`` of its metrics.
        memory_reserved_bytes: likewise; None without a card.
    """

    steps: list[int]
    seconds: float
    device: str
    shares: dict[str, float]
    hidden_communication: float = 0.0
    memory_bytes: float | None = None
    memory_reserved_bytes: float | None = None

    @property
    def title(self) -> str:
        """What was profiled."""
        first, last = self.steps[0], self.steps[-1]
        which = f"step {first}" if first == last else f"steps {first} to {last}"
        return f"{which} of the first process, {step_duration(self.seconds)} each with the profiler"

    @property
    def facts(self) -> dict[str, str]:
        """A line for each part, and for memory."""
        found = {name: f"{100 * share:5.1f} %" for name, share in self.shares.items()}
        if self.hidden_communication:
            found["communication behind computing"] = percent(self.hidden_communication)
        if self.memory_bytes is not None:
            reserved = self.memory_reserved_bytes
            found["memory"] = memory(self.memory_bytes) + (f", {memory(reserved)} reserved" if reserved else "")
        return found


def read_profile(trace: Path, metrics: Iterable[Mapping[str, Any]] = ()) -> Profile:
    """The profile that a trace holds.

    Args:
        trace: Chrome's JSON, compressed, with the ranges of the training loop.
        metrics: rows of the training's metrics, for the memory of its steps.

    Raises:
        ValueError: the trace has no step.
    """
    with gzip.open(trace, "rt", encoding="utf-8") as file:
        events = [event for event in json.load(file)["traceEvents"] if event.get("ph") == "X"]
    steps = {
        int(event["name"].removeprefix(STEP)): _interval(event)
        for event in events
        if event.get("cat") == "user_annotation" and event["name"].startswith(STEP)
    }
    if not steps:
        raise ValueError(f"{trace} holds no optimizer step")
    whole = union(steps.values())
    host = _Host(events)
    on_card = [event for event in events if event.get("cat") in _DEVICE]
    shares, hidden = _on_card(on_card, host, whole) if on_card else (_on_cpu(host, whole), 0.0)
    device, seconds = "cuda" if on_card else "cpu", length(whole)
    shares[WAITING[device]] = seconds - sum(shares.values())
    rows = [row for row in metrics if row["step"] in steps]

    def peak(name: str) -> float | None:
        return max((row[name] for row in rows if row.get(name) is not None), default=None)

    return Profile(
        steps=sorted(steps),
        seconds=seconds / len(steps) / 1e6,
        device=device,
        shares={
            name: spent / seconds for name, spent in sorted(shares.items(), key=lambda item: -item[1]) if spent > 0
        },
        hidden_communication=hidden / seconds,
        memory_bytes=peak("memory_bytes"),
        memory_reserved_bytes=peak("memory_reserved_bytes"),
    )


@dataclass(slots=True)
class _Node:
    """An operator, range or call of CUDA on a thread of the host."""

    name: str
    begin: float
    end: float
    around: str | None
    operator: str
    is_range: bool


class _Host:
    """What the threads of the host did.

    Attributes:
        main: what each moment of the thread that trains belongs to, in order.
        launched: what launched a kernel, by its correlation.
        layouts: when batches were laid out.
        exchanges: when other threads exchanged data.
    """

    def __init__(self, events: Sequence[Mapping[str, Any]]) -> None:
        threads: dict[tuple[Any, Any], list[Mapping[str, Any]]] = {}
        for event in events:
            if event.get("cat") in _HOST:
                threads.setdefault((event["pid"], event["tid"]), []).append(event)
        self.main: list[tuple[Interval, _Node]] = []
        self.launched: dict[int, _Node] = {}
        layouts, exchanges = [], []
        for of_thread in threads.values():
            trains = any(event["name"].startswith(STEP) for event in of_thread)
            for interval, node in self._innermost(of_thread):
                if trains:
                    self.main.append((interval, node))
                    if node.name == LAYOUT_RANGE:
                        layouts.append((node.begin, node.end))
                elif node.around == COMMUNICATION:
                    exchanges.append(interval)
        self.layouts, self.exchanges = union(layouts), union(exchanges)

    def _innermost(self, events: Iterable[Mapping[str, Any]]) -> Iterator[tuple[Interval, _Node]]:
        """Each stretch of a thread's time with what was running innermost."""
        stack: list[_Node] = []
        now = 0.0
        for event in sorted(events, key=lambda each: (each["ts"], -each["dur"])):
            begin, end = _interval(event)
            while stack and stack[-1].end <= begin:
                done = stack.pop()
                if now < done.end:
                    yield (now, done.end), done
                    now = done.end
            if stack and now < begin:
                yield (now, begin), stack[-1]
            now = max(now, begin)
            stack.append(self._node(event, begin, end, stack[-1] if stack else None))
        while stack:
            done = stack.pop()
            if now < done.end:
                yield (now, done.end), done
                now = done.end

    def _node(self, event: Mapping[str, Any], begin: float, end: float, above: _Node | None) -> _Node:
        name = event["name"]
        around = named(name) or (above.around if above is not None else None)
        operator = name if event["cat"] == "cpu_op" or above is None else above.operator
        is_range = event["cat"] == "user_annotation" and name.startswith((RANGE, "ProfilerStep"))
        node = _Node(name, begin, end if above is None else min(end, above.end), around, operator, is_range)
        if "correlation" in event.get("args", ()):
            self.launched[event["args"]["correlation"]] = node
        return node


def _on_cpu(host: _Host, whole: list[Interval]) -> dict[str, float]:
    """Microseconds of the steps by part."""
    spent: dict[str, float] = defaultdict(float)
    at_work: list[Interval] = []
    for interval, node in host.main:
        if node.is_range:
            continue
        for piece in within([interval], whole):
            spent[part(node.around, node.operator)] += piece[1] - piece[0]
            at_work.append(piece)
    idle = without(whole, union(at_work))
    for name, intervals in ((LAYOUT, host.layouts), (COMMUNICATION, host.exchanges)):
        spent[name] += length(within(idle, intervals))
        idle = without(idle, intervals)
    return spent


def _on_card(events: Sequence[Mapping[str, Any]], host: _Host, whole: list[Interval]) -> tuple[dict[str, float], float]:
    """Microseconds of the steps by part, and those of communication behind computing."""
    spent: dict[str, float] = defaultdict(float)
    others: dict[str, list[Interval]] = {COMMUNICATION: [], LAYOUT: []}
    computing: list[Interval] = []
    covered = 0.0
    for event in sorted(events, key=lambda each: each["ts"]):
        launch = host.launched.get(event.get("args", {}).get("correlation"))
        around = named(event["name"]) or (launch.around if launch is not None else None)
        name = part(around, launch.operator if launch is not None else "", event["name"])
        for begin, end in within([_interval(event)], whole):
            if name in others:
                others[name].append((begin, end))
                continue
            spent[name] += max(0.0, end - max(begin, covered))  # another stream may compute at the same time
            covered = max(covered, end)
            computing.append((begin, end))
    at_work = union(computing)
    hidden = length(within(union(others[COMMUNICATION]), at_work))
    for name, intervals in others.items():
        alone = without(union(intervals), at_work)
        spent[name] += length(alone)
        at_work = union([*at_work, *alone])
    idle = without(whole, at_work)
    spent[LAYOUT] += length(within(idle, host.layouts))
    return spent, hidden


def _interval(event: Mapping[str, Any]) -> Interval:
    return float(event["ts"]), float(event["ts"]) + float(event["dur"])
