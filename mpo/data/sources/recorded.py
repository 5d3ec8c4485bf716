"""A local file or a hub data set as source."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from mpo.data.sources.base import OnProblem, Source
from mpo.data.sources.reader import SourceSpec, read_sets, resolve_layout
from mpo.types import ResponseSet


@dataclass(frozen=True)
class Recorded(Source):
    """Rows of a file or of a hub data set's split.

    Attributes:
        spec: what is read, and how.
        heldout_source: another file or hub name whose sets are held out.
        heldout_split: or another split of the same one.
        limit: first sets only.
    """

    spec: SourceSpec
    heldout_source: str | None = None
    heldout_split: str | None = None
    limit: int | None = None

    @property
    def name(self) -> str:
        """The hub name; of a file only its name."""
        path = Path(self.spec.path_or_name).expanduser()
        return path.name if path.exists() else self.spec.path_or_name

    @property
    def reads(self) -> Mapping[str, str]:
        """See :attr:`Source.reads`."""
        own = {"data.source": self.spec.path_or_name}
        return own if self.heldout_source is None else {**own, "data.heldout_source": self.heldout_source}

    def read_sets(self, rounds: int, on_problem: OnProblem) -> Iterator[ResponseSet]:
        """See :meth:`Source.read_sets`."""
        return itertools.islice(read_sets(self.spec, on_problem), self.limit)

    def read_heldout(self, on_problem: OnProblem) -> Iterator[ResponseSet] | None:
        """See :meth:`Source.read_heldout`."""
        split = self.heldout_split or self.spec.split
        if self.heldout_source is None:
            return None if self.heldout_split is None else read_sets(replace(self.spec, split=split), on_problem)
        # Another source's layout and revision are its own; the score is the same one where the layout is.
        other = SourceSpec(self.heldout_source, split=split)
        same = resolve_layout(other) == resolve_layout(self.spec)
        return read_sets(replace(other, score_field=self.spec.score_field if same else None), on_problem)
