"""Processes of a stage that share its work out and compute nothing together: each holds a model of its own."""

from __future__ import annotations

import contextlib
import os
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

POLL_S = 0.05
LAUNCHED = "TORCHELASTIC_RUN_ID"
"""Variable of processes that the launcher has started; a cluster may set the others for the run itself."""
OF_THE_GROUP = (
    "RANK", "LOCAL_RANK", "GROUP_RANK", "ROLE_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "GROUP_WORLD_SIZE",
    "ROLE_WORLD_SIZE", "ROLE_NAME", "MASTER_ADDR", "MASTER_PORT",
)  # fmt: skip


@dataclass
class Replica:
    """This process among those that share a stage's work.

    Attributes:
        index: from 0 on; replica 0 writes what the stage leaves.
        count: replicas, over all machines.
    """

    index: int = 0
    count: int = 1
    _store: Any = None
    _others: int = 0
    _alone: Counter[str] = field(default_factory=Counter)

    @property
    def first(self) -> bool:
        """Whether it is the one that writes, warns and reports progress."""
        return self.index == 0

    def takes(self, number: int) -> bool:
        """Whether piece ``number`` of the work is this replica's: whatever another attempt has left, they all agree."""
        return number % self.count == self.index

    def count_done(self, what: str, more: int) -> int:
        """Add to a count that all replicas share; returns it."""
        if self._store is not None:
            return int(self._store.add(what, more))
        self._alone[what] += more
        return self._alone[what]

    def wait_for_others(self) -> None:
        """Of the first one: until all others have ended their work. One that fails ends the whole group."""
        while self._others and self.count_done("ended", 0) < self._others:
            time.sleep(POLL_S)


@contextlib.contextmanager
def replica(output: Path, cards: int = 1) -> Iterator[Replica | None]:
    """This process's part, None where it has none: a replica may take several ``cards``, each of which has a process.

    Inside the block the process sees its own cards alone, and nothing says that it is one of a group: a library that
    found its launcher's variables would wait for the others.

    Args:
        output: the stage's folder.
    """
    size, local_size = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    if size == 1 or LAUNCHED not in os.environ:
        yield Replica()
        return
    from torch import distributed as dist

    address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    store = dist.PrefixStore(f"replicas/{output.name}", dist.TCPStore(address, port, is_master=False))  # type: ignore[attr-defined]
    local, on_machine = int(os.environ["LOCAL_RANK"]), max(1, local_size // cards)
    index = int(os.environ["GROUP_RANK"]) * on_machine + local
    mine = Replica(index, on_machine * (size // local_size), store, size - 1) if local < on_machine else None
    before = dict(os.environ)
    for name in OF_THE_GROUP:
        os.environ.pop(name, None)
    if on_machine > 1 and mine is not None:
        _see_own_cards(local, cards)
    try:
        yield mine
        if int(before["RANK"]) > 0:
            store.add("ended", 1)
    finally:
        os.environ.update({name: before[name] for name in OF_THE_GROUP if name in before})


def _see_own_cards(local: int, cards: int) -> None:
    import torch

    if torch.cuda.is_available():
        named = os.environ.get("CUDA_VISIBLE_DEVICES")
        seen = named.split(",") if named else [str(number) for number in range(torch.cuda.device_count())]
        os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(seen[local * cards : (local + 1) * cards])
