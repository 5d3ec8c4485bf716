"""Several files and hub sets as one source, mixed by weight."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from mpo.data.sources.base import OnProblem, Source
from mpo.data.sources.layouts import check_layout
from mpo.data.sources.reader import SourceSpec
from mpo.data.sources.recorded import Recorded
from mpo.errors import ConfigError, DataError
from mpo.types import ResponseSet

KEY = "data.source"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,39}")


@dataclass(frozen=True)
class Rows:
    """Rows of a file or of a hub data set's split; see :class:`SourceSpec`.

    Attributes:
        path: the file, or the data set's name.
        limit: first sets only.
    """

    path: str
    layout: str = "auto"
    split: str = "train"
    revision: str | None = None
    score_field: str | None = None
    limit: int | None = None

    @property
    def spec(self) -> SourceSpec:
        """What is read, and how."""
        return SourceSpec(self.path, self.layout, self.split, self.revision, self.score_field)

    @property
    def source(self) -> Recorded:
        """The same as a source of its own."""
        return Recorded(self.spec, limit=self.limit)


@dataclass(frozen=True)
class Part(Rows):
    """One part of a mixture, and how many of its sets there are against those of the others."""

    weight: float = 1.0


@dataclass(frozen=True)
class Mixture(Source):
    """Parts of which each gives its share of the sets: its weight over the sum of the weights.

    The sets of a part are drawn without replacement (:mod:`mpo.data.mixing`), after those are left out whose prompt an
    earlier part has too.

    Attributes:
        parts: by name, which begins the ids of a part's sets (``name/id``).
        total: sets of all parts together; None for as many as the scarcest part allows.
        heldout: sets that are held out, in place of some of the parts'.

    Raises:
        ConfigError: no part, a name or value out of range, a layout that there is not.
    """

    parts: dict[str, Part]
    total: int | None = None
    heldout: Rows | None = None

    def __post_init__(self) -> None:
        if not self.parts:
            raise ConfigError("no part", f"{KEY}.parts", "give some: {NAME: {path: FILE, weight: 1}}")
        for name, part in self.parts.items():
            if not NAME.fullmatch(name):
                what = f"'{name}' is no name of a part"
                raise ConfigError(what, f"{KEY}.parts", "take at most 40 letters, digits, _ and -")
            if not (math.isfinite(part.weight) and 1e-6 <= part.weight <= 1e9):
                what = f"{part.weight:g} is out of range"
                raise ConfigError(what, f"{KEY}.parts.{name}.weight", "give a number in [1e-06, 1e+09]")
        if self.total is not None and self.total < 1:
            raise ConfigError(f"{self.total} is out of range", f"{KEY}.total", "give a number of sets, or null")
        for key, rows in self._rows().items():
            if rows.limit is not None and rows.limit < 1:
                raise ConfigError(f"{rows.limit} is out of range", f"{key}.limit", "give a number of sets, or null")
            try:
                check_layout(rows.layout, rows.score_field)
            except DataError as error:
                raise ConfigError(error.what, f"{key}.{error.where}", error.remedy) from None

    @property
    def name(self) -> str:
        """It names the parts."""
        return f"mixture of {', '.join(self.parts)}"

    @property
    def reads(self) -> Mapping[str, str]:
        """See :attr:`Source.reads`."""
        return {f"{key}.path": rows.path for key, rows in self._rows().items()}

    def components(self) -> Mapping[str, Source]:
        """See :meth:`Source.components`."""
        return {name: part.source for name, part in self.parts.items()}

    def read_sets(self, rounds: int, on_problem: OnProblem) -> Iterator[ResponseSet]:
        """All sets of all parts, see :meth:`Source.read_sets`; which of them are taken is decided by who reads them."""
        for name, source in self.components().items():
            for one in source.read_sets(rounds, on_problem):
                yield replace(one, id=f"{name}/{one.id}")

    def read_heldout(self, on_problem: OnProblem) -> Iterator[ResponseSet] | None:
        """See :meth:`Source.read_heldout`."""
        return None if self.heldout is None else self.heldout.source.read_sets(1, on_problem)

    def count(self, rounds: int) -> int | None:
        """``total``, where it is given."""
        return self.total

    def _rows(self) -> dict[str, Rows]:
        """All that is read by its configuration key."""
        found: dict[str, Rows] = {f"{KEY}.parts.{name}": part for name, part in self.parts.items()}
        return found if self.heldout is None else {**found, f"{KEY}.heldout": self.heldout}
