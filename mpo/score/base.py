"""What a scorer is. No torch: the command line checks scorers before anything is loaded."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from mpo.config.schema import ThinkingConfig
from mpo.errors import ConfigError
from mpo.types import Message, Response

SCORE_NAME = re.compile(r"[\w.-]+")


@dataclass(frozen=True, slots=True)
class Item:
    """One response to be scored, with the conversation that it answers and (JSON text) the tools it may call."""

    prompt: tuple[Message, ...]
    response: Message
    tools: str | None = None


def shown(one: Response, thinking: ThinkingConfig) -> Message:
    """What scorers read of a response: its answer, and before that, where thoughts are scored, the thought between its
    marks; a thought without an answer has no closing mark."""
    content = one.text
    if thinking.scored and one.reasoning is not None:
        content = f"{thinking.start}\n{one.reasoning}" + (f"\n{thinking.end}\n\n{one.text}" if one.text else "")
    return replace(one.message, content=content, reasoning=None)


def scorer_name(node: Mapping[str, Any]) -> str:
    """Under which name the scores of a scorer's node are kept: its own ``name``, else that of its function or class; of
    none, as in a plan without scorer, ``none``."""
    if node.get("name"):
        return str(node["name"])
    return str(node.get("function") or node.get("_target_", "none")).rpartition(".")[2]


def check_score_name(name: str) -> None:
    """Raise ConfigError for a name that cannot be part of a file's name and of an option."""
    if not SCORE_NAME.fullmatch(name):
        raise ConfigError(f"'{name}' cannot name a score", "score.name", "use letters, digits, '_', '-' and '.'")


class Scorer(ABC):
    """Scores responses. A frozen dataclass whose fields are the options of its YAML file in ``conf/score``.

    The stage that calls it brings together items of similar length from many sets, keeps what is scored, goes on there
    when it was stopped, and refuses what is not a finite number; a scorer does none of that.
    """

    items_at_once: ClassVar[int] = 64
    """Most items that :meth:`score` gets in one call."""
    compares: ClassVar[bool] = False
    """It scores responses against each other: a call of :meth:`score` gets all responses of one set and no others."""
    continuous: ClassVar[bool] = False
    """Its scores of different texts are equal by accident alone, so that one score for a whole split is an error; for
    other scorers (a verifier that gives 0 or 1, say) it is a warning."""

    replicated: ClassVar[bool] = False
    """Each of the launcher's processes may hold one, and score a share of the sets."""

    change_no_score: ClassVar[frozenset[str]] = frozenset()
    """Options that change no score, such as a server's address: with others, what is scored already still holds."""

    @property
    def source(self) -> str:
        """The module whose code computes the scores; what it raises is reported to its author in one line."""
        return type(self).__module__

    @property
    def only_for(self) -> str | None:
        """Name of the one data source whose prompts it can score; None for any."""
        return None

    def check(self) -> None:  # noqa: B027  # many have nothing to look at
        """Raise ConfigError for what is wrong already before anything is sampled. Loads no model, imports no torch."""

    @abstractmethod
    def score(self, items: Sequence[Item]) -> list[float]:
        """One finite number per item, in their order; larger is better. It must not depend on which items it gets
        together, unless it :attr:`compares`."""

    def take_warnings(self) -> dict[str, int]:
        """By reason, how many of the items scored since the last call need a warning: inputs that were cut, say."""
        return {}

    def take_means(self) -> dict[str, tuple[float, int]]:
        """By what they are, sum and count of numbers met since the last call, whose mean the report shows."""
        return {}

    def close(self) -> None:  # noqa: B027  # many hold nothing
        """Release what :meth:`score` has loaded; called once after the last item."""
