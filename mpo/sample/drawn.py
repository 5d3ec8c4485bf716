"""Sampled batches kept as they come, so that a stopped run need not draw them again."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

from mpo.cache.artifacts import whole_lines, write_text
from mpo.cache.checksums import Damaged, sealed, unsealed
from mpo.sample.hf import Sampled


class DrawnBatches:
    """Batches on the disk, a line each, as they are drawn; what a kill has cut or damage has changed is drawn again.

    Args:
        path: where they lie; made where it is missing.
        on_done: called after each batch with the number of prompts that have their responses.

    Attributes:
        drawn: what an earlier attempt has left, each prompt's responses, by the batch's number.
        damaged: lines that are not as they were written.
    """

    def __init__(self, path: Path, on_done: Callable[[int], None]) -> None:
        self._on_done = on_done
        self.drawn: dict[int, list[list[Sampled]]] = {}
        kept, self.damaged = [], 0
        for line in whole_lines(path).splitlines(keepends=True):
            try:
                row = unsealed(line, path.name)
            except Damaged:
                self.damaged += 1
                continue
            kept.append(line)
            self.drawn[row["batch"]] = [[Sampled(**each) for each in of_prompt] for of_prompt in row["responses"]]
        if self.damaged:
            write_text(path, b"".join(kept).decode())
        self._file = path.open("ab")
        self._file.truncate(sum(map(len, kept)))

    def add(self, number: int, responses: Sequence[Sequence[Sampled]], done: int) -> None:
        """Write a batch, to the disk itself; ``done`` prompts have their responses by now."""
        row = {"batch": number, "responses": [[asdict(each) for each in of_prompt] for of_prompt in responses]}
        self._file.write(json.dumps(sealed(row)).encode() + b"\n")
        self._file.flush()
        os.fsync(self._file.fileno())
        self._on_done(done)

    def __enter__(self) -> DrawnBatches:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
