"""The closed world: its words, its prompts and the split that a prompt belongs to. Pure Python.

A prompt asks for a few sentences under constraints, e.g. ``write 3 sentences about garden ; use : rose , slowly ;
start with hello ; no names``. A prompt's text holds all there is to know about it, so that a reward needs no more than
the two texts. Every word is one token.
"""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, get_args

from mpo.errors import ConfigError, DataError

Split = Literal["demonstration", "preference", "heldout"]

TOPICS: dict[str, tuple[str, ...]] = {
    "garden": ("rose", "tree", "bee", "fence", "gardener"),
    "kitchen": ("spoon", "oven", "soup", "plate", "cook"),
    "harbor": ("boat", "gull", "rope", "anchor", "sailor"),
    "school": ("book", "desk", "pencil", "bell", "teacher"),
    "market": ("apple", "coin", "basket", "stall", "seller"),
    "forest": ("wolf", "owl", "moss", "river", "hunter"),
}
"""Topic to the nouns that belong to it."""

VERBS = (
    "sees", "finds", "likes", "holds", "moves", "paints", "hears", "wants", "leaves", "guards", "follows", "misses",
)  # fmt: skip
OPENERS = ("hello", "well", "listen", "look", "so")
CLOSERS = ("indeed", "friend", "again", "together", "goodbye")
CLASSES: dict[str, tuple[str, ...]] = {
    "names": ("anna", "boris", "clara", "david", "emma", "felix"),
    "colors": ("red", "blue", "green", "white", "black", "yellow"),
    "adverbs": ("slowly", "quickly", "gladly", "quietly", "proudly", "gently"),
    "times": ("today", "now", "often", "later"),
}
"""Word classes that a prompt may ban, or ask for in every sentence."""

SINGULAR = {name: name.removesuffix("s") for name in CLASSES}
"""How ``each with`` writes a class. Another word than the plural after ``no``, so that a small model need not bind."""

COUNTS = (2, 3, 4)
DETERMINER, STOP = "the", "."
_FRAME = ("write", "2", "3", "4", "sentences", "about", ";", "use", ":", ",", "start", "with", "end", "no", "each")

VOCABULARY: tuple[str, ...] = (
    *_FRAME, *CLASSES, *SINGULAR.values(), *TOPICS, DETERMINER, STOP,
    *(noun for nouns in TOPICS.values() for noun in nouns), *VERBS,
    *(word for words in CLASSES.values() for word in words), *OPENERS, *CLOSERS,
)  # fmt: skip
"""Every word of the world, in a fixed order; the tokenizer adds its special tokens."""

_PLURAL = {singular: name for name, singular in SINGULAR.items()}
_PROMPT = re.compile(
    r"write (\d) sentences about (\w+) ; use : (\w+(?: , \w+)*)"
    r"(?: ; start with (\w+))?(?: ; end with (\w+))?(?: ; no (\w+))?"
    rf"(?: ; each with ({'|'.join(_PLURAL)}))?"
)
_MOST_REPEATS = 10_000
# Of ten buckets of the hash; far more prompts exist than a run asks for, so the shares only set the rejection rate.
_BUCKETS: dict[Split, range] = {"demonstration": range(6), "preference": range(6, 8), "heldout": range(8, 10)}


@dataclass(frozen=True, slots=True)
class Instruction:
    """What one prompt asks for; ``Instruction.parse(x.text) == x``.

    Args:
        topic: key of ``TOPICS``; every sentence should hold one of its nouns.
        count: number of sentences, one of ``COUNTS``.
        required: words that the response must hold, at least one.
        start: opener that must be the first word, or None.
        end: closer that must be the last word before the final stop, or None.
        banned: key of ``CLASSES`` of which no word may occur, or None.
        each: key of ``CLASSES`` of which every sentence must hold a word, or None.

    Raises:
        DataError: a part is not of this world.
    """

    topic: str
    count: int
    required: tuple[str, ...]
    start: str | None = None
    end: str | None = None
    banned: str | None = None
    each: str | None = None

    def __post_init__(self) -> None:
        known = (
            self.topic in TOPICS
            and self.count in COUNTS
            and bool(self.required)
            and all(word in VOCABULARY for word in self.required)
            and (self.start is None or self.start in OPENERS)
            and (self.end is None or self.end in CLOSERS)
            and (self.banned is None or self.banned in CLASSES)
            and (self.each is None or self.each in CLASSES)
        )
        if not known:
            raise DataError(
                "a prompt asks for what the testbed does not know", repr(self), "use the testbed's own prompts"
            )

    @property
    def text(self) -> str:
        """The prompt, words joined by single blanks."""
        parts = [f"write {self.count} sentences about {self.topic}", f"use : {' , '.join(self.required)}"]
        for lead, value in (("start with", self.start), ("end with", self.end), ("no", self.banned)):
            if value is not None:
                parts.append(f"{lead} {value}")
        if self.each is not None:
            parts.append(f"each with {SINGULAR[self.each]}")
        return " ; ".join(parts)

    @staticmethod
    @lru_cache(maxsize=65_536)
    def parse(text: str) -> Instruction:
        """Read a prompt's text back.

        Raises:
            DataError: the text is no prompt of this world.
        """
        match = _PROMPT.fullmatch(text.strip())
        if match is None:
            raise DataError("not a prompt of the testbed", text[:80], "score it with a reward for real prompts")
        count, topic, required, start, end, banned, singular = match.groups()
        each = None if singular is None else _PLURAL[singular]
        return Instruction(topic, int(count), tuple(required.split(" , ")), start, end, banned, each)


def split_of(text: str) -> Split:
    """The split that a prompt belongs to, by a hash of its text: no prompt is ever in two."""
    bucket = int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") % 10
    return next(split for split, buckets in _BUCKETS.items() if bucket in buckets)


def generate_instructions(n: int, seed: int, split: Split) -> Iterator[Instruction]:
    """Draw ``n`` distinct instructions of one split; a smaller ``n`` gives a prefix of a larger one.

    Raises:
        ConfigError: an unknown split, or more prompts than the world has.
    """
    if split not in get_args(Split):
        raise ConfigError(f"unknown split '{split}'", "split", f"use one of {', '.join(get_args(Split))}")
    rng = random.Random(f"{split}-{seed}")
    seen: set[str] = set()
    rejected = 0
    while len(seen) < n:
        instruction = _draw(rng)
        text = instruction.text
        if text in seen or split_of(text) != split:
            rejected += 1
            if rejected > _MOST_REPEATS:
                raise ConfigError(f"the testbed has too few prompts for n={n}", "n", f"ask for at most {len(seen)}")
            continue
        rejected = 0
        seen.add(text)
        yield instruction


def _draw(rng: random.Random) -> Instruction:
    topic, count = rng.choice(tuple(TOPICS)), rng.choice(COUNTS)
    extras = rng.sample(("start", "end", "banned", "each"), rng.randint(1, 2))
    banned, each = rng.sample(tuple(CLASSES), 2)
    pool = [*TOPICS[topic], *VERBS]
    for name in ("colors", "adverbs"):
        if not ("banned" in extras and banned == name):
            pool += CLASSES[name]
    return Instruction(
        topic=topic,
        count=count,
        required=tuple(rng.sample(pool, rng.randint(1, 2))),
        start=rng.choice(OPENERS) if "start" in extras else None,
        end=rng.choice(CLOSERS) if "end" in extras else None,
        banned=banned if "banned" in extras else None,
        each=each if "each" in extras else None,
    )
