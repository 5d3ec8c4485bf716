"""Demonstrations of mixed quality, for the policy that preference training starts from."""

from __future__ import annotations

import random
from collections.abc import Iterator

from mpo.testbed.world import (
    CLASSES,
    CLOSERS,
    DETERMINER,
    OPENERS,
    STOP,
    TOPICS,
    VERBS,
    VOCABULARY,
    Instruction,
    Split,
    generate_instructions,
)
from mpo.types import Message, Response, ResponseSet

QUALITIES, WEIGHTS = (0.25, 0.6, 0.97), (0.35, 0.3, 0.35)
_NAMED_SUBJECT = 0.25
_MOST_OPTIONAL = 0.4
_DISFLUENT, _SAME_VERB, _SAME_SENTENCE = 0.6, 0.5, 0.15
# Words that may stand in a response by mistake; the prompt's frame words never do.
_CONTENT = VOCABULARY[VOCABULARY.index(DETERMINER) :]
_CONTENT_WORDS = tuple(word for word in _CONTENT if word != STOP)


def generate_demonstrations(n: int, seed: int) -> Iterator[tuple[str, str]]:
    """``n`` pairs of prompt and response, all of the demonstration split; quality drawn anew for each."""
    rng = random.Random(f"responses-{seed}")
    for instruction in generate_instructions(n, seed, "demonstration"):
        quality = rng.choices(QUALITIES, WEIGHTS)[0]
        yield instruction.text, demonstrate(instruction, quality, rng)


def demonstration_sets(n: int, seed: int) -> Iterator[ResponseSet]:
    """The same as sets of one response each, with ids ``demo-000000`` onward."""
    for i, (prompt, response) in enumerate(generate_demonstrations(n, seed)):
        yield ResponseSet(f"demo-{i:06d}", (Message("user", prompt),), (Response(response),))


def prompt_sets(n: int, seed: int, split: Split) -> Iterator[ResponseSet]:
    """``n`` distinct prompts of one split without responses, with ids ``{split}-000000`` onward.

    Raises:
        ConfigError: an unknown split, or more prompts than the world has.
    """
    for i, instruction in enumerate(generate_instructions(n, seed, split)):
        yield ResponseSet(f"{split}-{i:06d}", (Message("user", instruction.text),), ())


def demonstrate(instruction: Instruction, quality: float, rng: random.Random) -> str:
    """One response: each constraint kept with probability ``quality``, slips proportional to ``1 - quality``.

    Verbosity is drawn independently of quality, so that length says next to nothing about reward. A quality of 1
    scores exactly 10.
    """
    verbosity = _MOST_OPTIONAL * rng.random()

    def kept() -> bool:
        return rng.random() < quality

    count = instruction.count if kept() else max(1, instruction.count + rng.choice((-2, -1, 1, 2)))
    topic = instruction.topic if kept() else rng.choice(tuple(TOPICS))
    banned = instruction.banned if kept() else None
    each = instruction.each if kept() else None
    required = [word for word in instruction.required if kept()]
    # One each while there is room, in the prompt's order.
    wanted = [required[i::count] for i in range(count)]
    verbs = _pick_verbs(wanted, rng)
    sentences = [
        _sentence(topic, verb, words, banned, each, verbosity, rng) for verb, words in zip(verbs, wanted, strict=True)
    ]
    _make_slips(sentences, 1.0 - quality, rng)
    start = instruction.start if kept() else _perhaps(OPENERS, rng)
    end = instruction.end if kept() else _perhaps(CLOSERS, rng)
    if start is not None:
        sentences[0].insert(0, start)
    if end is not None:
        sentences[-1].append(end)
    return " ".join(word for sentence in sentences for word in (*sentence, STOP))


def _pick_verbs(wanted: list[list[str]], rng: random.Random) -> list[str]:
    """A verb for each sentence, no two the same, those that are required in their place."""
    given = [next((word for word in words if word in VERBS), None) for words in wanted]
    others = iter(rng.sample([verb for verb in VERBS if verb not in given], len(given)))
    return [verb if verb is not None else next(others) for verb in given]


def _sentence(
    topic: str,
    verb: str,
    words: list[str],
    banned: str | None,
    each: str | None,
    verbosity: float,
    rng: random.Random,
) -> list[str]:
    def chosen(name: str, probability: float) -> list[str]:
        """The required word of the class, or perhaps another one of it."""
        given = [word for word in words if word in CLASSES[name]]
        if given:
            return given[:1]
        if name == each or (name != banned and rng.random() < probability):
            return [rng.choice(CLASSES[name])]
        return []

    nouns = rng.sample(TOPICS[topic], 2)
    given_noun = next((word for word in words if any(word in members for members in TOPICS.values())), None)
    object_noun = given_noun if given_noun is not None else nouns[0]
    subject_noun = nouns[1] if nouns[1] != object_noun else nouns[0]
    color = chosen("colors", verbosity)
    subject = chosen("names", _NAMED_SUBJECT)
    if not subject:
        subject = [DETERMINER, subject_noun]
        if color and rng.random() < 0.5:
            subject, color = [DETERMINER, *color, subject_noun], []
    tail = [*chosen("adverbs", verbosity), *chosen("times", verbosity)]
    return [*subject, verb, DETERMINER, *color, object_noun, *tail]


def _perhaps(words: tuple[str, ...], rng: random.Random) -> str | None:
    return rng.choice(words) if rng.random() < 0.3 else None


def _make_slips(sentences: list[list[str]], rate: float, rng: random.Random) -> None:
    """Repeat verbs and sentences and break the grammar, in place."""
    for i, sentence in enumerate(sentences):
        if i and rng.random() < rate * _SAME_SENTENCE:
            sentence[:] = sentences[i - 1]
        elif i and rng.random() < rate * _SAME_VERB:
            before = next((word for word in sentences[i - 1] if word in VERBS), None)
            sentence[:] = [before if before is not None and word in VERBS else word for word in sentence]
        if rng.random() < rate * _DISFLUENT:
            _break(sentence, rng)


def _break(sentence: list[str], rng: random.Random) -> None:
    at = rng.randrange(len(sentence) - 1)
    slip = rng.randrange(4)
    if slip == 0:
        del sentence[at]
    elif slip == 1:
        sentence.insert(at, sentence[at])
    elif slip == 2:
        sentence[at], sentence[at + 1] = sentence[at + 1], sentence[at]
    else:
        sentence[at] = rng.choice(_CONTENT_WORDS)
