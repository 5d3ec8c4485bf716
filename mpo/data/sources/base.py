"""What a source is: where prompts come from, with or without responses and scores. No torch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

from mpo.data.problems import Problem
from mpo.types import ResponseSet

OnProblem = Callable[[Problem], None]


class Source(ABC):
    """Response sets, or prompts alone. A frozen dataclass whose fields are the options below ``data.source``.

    The stage that reads it holds sets out, takes a share of them, and checks each one; a source does none of that.
    """

    gives_responses: ClassVar[bool] = True
    """False for prompts alone: their responses are drawn from the policy, in the off-policy regime too."""
    true_scorer: ClassVar[Mapping[str, Any] | None] = None
    """Node of a scorer that knows the true reward: held-out sets and measures are judged by it."""
    own_tokenizer: ClassVar[bool] = False
    """Whether :meth:`save_tokenizer` makes a tokenizer for models from scratch (``model.scratch.tokenizer=source``)."""
    immediate: ClassVar[bool] = False
    """Whether reading it takes no time, so that it needs no process of its own."""
    note: ClassVar[str] = ""
    """Said beside every result on this data; of several sentences the first is a label that stands alone."""

    @property
    def name(self) -> str:
        """What records and reports call it."""
        return type(self).__name__

    @property
    def reads(self) -> Mapping[str, str]:
        """Files and hub sets that it reads, by the configuration's key."""
        return {}

    def components(self) -> Mapping[str, Source]:
        """By name the sources that it is put together from, which are read one after the other; one that is whole is
        its own, without a name."""
        return {"": self}

    def check(self) -> None:  # noqa: B027  # many have nothing to look at
        """Raise ConfigError or DataError for what is wrong already before anything is read. Imports no torch."""

    @abstractmethod
    def read_sets(self, rounds: int, on_problem: OnProblem) -> Iterator[ResponseSet]:
        """The sets to train on, always in the same order.

        Args:
            rounds: that share the prompts; a source that can make any number makes as many for each.
            on_problem: called with what is wrong with a set that is left out, or used with a warning.
        """

    def read_heldout(self, on_problem: OnProblem) -> Iterator[ResponseSet] | None:
        """Sets that are held out; None to hold out some of the others."""
        return None

    def read_demonstrations(self) -> Iterator[ResponseSet] | None:
        """Sets of one response each that a policy from scratch is tuned on; None for the sets themselves."""
        return None

    def for_demonstrations(self) -> Source:
        """The same with defaults for all that demonstrations and tokenizer do not depend on, so that it counts for
        nothing in the starting policy."""
        return self

    def count(self, rounds: int) -> int | None:
        """How many sets :meth:`read_sets` gives, where that is known before; for the plan."""
        return None

    def count_heldout(self) -> int | None:
        """How many :meth:`read_heldout` gives, where that is known before; for the plan."""
        return None

    def count_demonstrations(self) -> int | None:
        """How many :meth:`read_demonstrations` gives; for the plan."""
        return None

    def save_tokenizer(self, folder: Path) -> None:
        """Save a tokenizer with a chat template, as ``save_pretrained`` does."""
        raise NotImplementedError(f"{type(self).__name__} has no tokenizer of its own")
