"""The one place that prints for people.

On a terminal a stage is a live bar; anywhere else (a log file, a pipe, a cluster job) it is two lines, without colour
codes or carriage returns.
"""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TextIO

from tqdm import tqdm

from mpo.errors import Stopped
from mpo.track.progress import Progress, ProgressReader
from mpo.track.streams import abandon, unwritable
from mpo.track.units import duration

MAX_FIELDS = 3
"""Fields of a progress that fit behind a bar."""

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


class Console:
    """Lines, tables and live bars on one text stream.

    Args:
        stream: what has been asked for, a plan say: failing to write to it is an error. By default standard error,
            which a run outlives: its results lie in its folder.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self.stream = sys.stderr if stream is None else stream
        self.interactive = self.stream.isatty()
        self._needed = stream is not None

    def line(self, text: str) -> None:
        """Prints one line, above a bar if there is one. Control characters, which data may carry, are left out.

        Raises:
            BrokenPipeError: the reader of a stream that was asked for has seen enough.
            UserError: such a stream cannot be written to.
        """
        encoding = getattr(self.stream, "encoding", None) or "utf-8"
        clean = _CONTROL.sub("", text).encode(encoding, "replace").decode(encoding)
        try:
            if self.interactive:
                tqdm.write(clean, file=self.stream)
            else:
                self.stream.write(clean + "\n")
            self.stream.flush()
        except BrokenPipeError:
            abandon(self.stream)
            if self._needed:
                raise
        except OSError as error:
            explained = unwritable(self.stream, error)
            if self._needed:
                raise explained from None

    def table(self, rows: Sequence[Sequence[object]], header: Sequence[str]) -> None:
        """Prints aligned columns under a ruled header; columns of numbers are aligned to the right."""
        columns = list(zip(header, *([str(cell) for cell in row] for row in rows), strict=True))
        widths = [max(map(len, column)) for column in columns]
        right = [bool(rows) and all(isinstance(row[i], int | float) for row in rows) for i in range(len(header))]

        def rendered(cells: Sequence[str]) -> str:
            padded = (
                cell.rjust(width) if to_right else cell.ljust(width)
                for cell, width, to_right in zip(cells, widths, right, strict=True)
            )
            return "  ".join(padded).rstrip()

        self.line(rendered(header))
        self.line("  ".join("-" * width for width in widths))
        for row in rows:
            self.line(rendered([str(cell) for cell in row]))

    def summary(self, title: str, facts: Mapping[str, str]) -> None:
        """Prints the block that ends a run: a title and one indented line a fact."""
        self.line("")
        self.line(title)
        width = max(map(len, facts), default=0)
        for name, value in facts.items():
            self.line(f"  {name.ljust(width)}  {value}")

    @contextmanager
    def stage(self, name: str, reader: ProgressReader) -> Iterator[LiveStage]:
        """Shows a stage while the block runs; call :meth:`LiveStage.refresh` as often as convenient.

        A line with the stage's time ends it, or one that says that it failed if the block raises.
        """
        if not self.interactive:
            self.line(f"{name}: started")
        started = time.monotonic()
        live = LiveStage(name, reader, self.stream if self.interactive else None)
        outcome = "failed after"
        try:
            yield live
            outcome = "done in"
        except (Stopped, KeyboardInterrupt):
            outcome = "stopped after"
            raise
        finally:
            live.close()
            self.line(f"{name}: {outcome} {duration(time.monotonic() - started)}")


class LiveStage:
    """A bar with rate and remaining time, fed from a progress file; silent without a terminal ``stream``."""

    def __init__(self, name: str, reader: ProgressReader, stream: TextIO | None) -> None:
        self._name, self._reader, self._stream = name, reader, stream
        self._bar: tqdm[object] | None = None

    def refresh(self) -> None:
        """Moves the bar to what the worker last wrote."""
        if self._stream is None:
            return
        progress = self._reader.read()
        if progress is None:
            return
        bar = self._bar_for(progress, self._stream)
        shown = list(progress.fields.items())[:MAX_FIELDS]
        bar.set_postfix_str(", ".join(f"{key} {_short(value)}" for key, value in shown), refresh=False)
        bar.update(progress.done - bar.n)
        bar.refresh()

    def close(self) -> None:
        """Takes the bar off the screen."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def _bar_for(self, progress: Progress, stream: TextIO) -> tqdm[object]:
        # A stage may work through several units one after the other, or restart: each gets its own bar.
        if self._bar is not None and (
            self._bar.unit.strip() != progress.unit or self._bar.total != progress.total or progress.done < self._bar.n
        ):
            self.close()
        if self._bar is None:
            self._bar = tqdm(
                desc=self._name,
                total=progress.total,
                initial=progress.first,
                unit=f" {progress.unit}",
                file=stream,
                leave=False,
                dynamic_ncols=True,
            )
            self._bar.start_t -= progress.seconds
        return self._bar


def _short(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:.4g}"
