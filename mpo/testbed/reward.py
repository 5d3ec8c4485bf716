"""The true reward of a response, and an imperfect stand-in for it. Both need the two texts alone."""

from __future__ import annotations

import hashlib
import math
import re
from statistics import NormalDist

from mpo.testbed.world import CLASSES, CLOSERS, DETERMINER, OPENERS, STOP, TOPICS, VERBS, Instruction

# One letter a word class, so that a sentence's grammar is a regular expression over letters.
_LETTER: dict[str, str] = {
    DETERMINER: "t",
    STOP: ".",
    **dict.fromkeys((noun for nouns in TOPICS.values() for noun in nouns), "n"),
    **dict.fromkeys(VERBS, "v"),
    **dict.fromkeys(CLASSES["names"], "m"),
    **dict.fromkeys(CLASSES["colors"], "a"),
    **dict.fromkeys(CLASSES["adverbs"], "d"),
    **dict.fromkeys(CLASSES["times"], "i"),
    **dict.fromkeys(OPENERS, "o"),
    **dict.fromkeys(CLOSERS, "c"),
}
_CLASS_LETTER = {name: _LETTER[words[0]] for name, words in CLASSES.items()}
_TOPIC_NOUNS = {topic: frozenset(nouns) for topic, nouns in TOPICS.items()}
_SENTENCE = re.compile(r"o?(?:m|ta?n)v(?:m|ta?n)d?i?c?")
_VERBS = frozenset(VERBS)
_NORMAL = NormalDist()


def true_reward(prompt: str, response: str) -> float:
    """How well ``response`` does what ``prompt`` asks: 10·C·(0.25 + 0.75·F)·(0.4 + 0.6·R), in 0..10.

    C is the mean graded satisfaction of the prompt's constraints, F the share of sentences that match the grammar,
    R half the share of distinct verbs and half the share of distinct sentences. An unfinished last sentence counts
    as a sentence that is no grammar's; no sentence at all scores 0.

    Raises:
        DataError: ``prompt`` is no prompt of the testbed.
    """
    instruction = Instruction.parse(prompt)
    words = response.split()
    sentences = _sentences(words)
    if not sentences:
        return 0.0
    letters = ["".join([_LETTER.get(word, "x") for word in sentence]) for sentence in sentences]
    n = len(sentences)
    fluent = sum(_SENTENCE.fullmatch(line) is not None for line in letters) / n
    verbs = [word for word in words if word in _VERBS]
    distinct_verbs = len(set(verbs)) / len(verbs) if verbs else 0.0
    distinct_sentences = len(set(map(tuple, sentences))) / n
    kept = _satisfaction(instruction, sentences, letters)
    variety = 0.5 * distinct_verbs + 0.5 * distinct_sentences
    return 10.0 * kept * (0.25 + 0.75 * fluent) * (0.4 + 0.6 * variety)


def proxy_reward(
    prompt: str, response: str, noise_sigma: float = 0.0, length_bias: float = 0.0, seed: int = 0, tail: float = 0.0
) -> float:
    """A learned reward model's stand-in: the true reward with Gaussian noise and a liking for length.

    Args:
        noise_sigma: standard deviation of the noise, in points of reward; one draw per (seed, prompt, response).
        length_bias: points of reward a token of the response.
        tail: bends the true reward to e^(tail · reward / 10), scaled to 0..10: the same order, but a few scores lie far
            above the rest. 0: straight.

    Raises:
        DataError: ``prompt`` is no prompt of the testbed.
    """
    noise = noise_sigma * text_normal(seed, prompt, response) if noise_sigma else 0.0
    reward = true_reward(prompt, response)
    if tail:
        reward = 10.0 * math.expm1(tail * reward / 10.0) / math.expm1(tail)
    return reward + noise + length_bias * len(response.split())


for _reward in (true_reward, proxy_reward):
    _reward.only_for = "testbed"  # type: ignore[attr-defined]  # other prompts cannot be parsed


def text_normal(seed: int, *texts: str) -> float:
    """A standard normal draw that depends on nothing but ``seed`` and ``texts``."""
    digest = hashlib.blake2b("\0".join((str(seed), *texts)).encode(), digest_size=8).digest()
    return _NORMAL.inv_cdf(((int.from_bytes(digest, "big") >> 11) + 0.5) / 2**53)


def _sentences(words: list[str]) -> list[list[str]]:
    sentences: list[list[str]] = [[]]
    for word in words:
        if word == STOP:
            sentences.append([])
        else:
            sentences[-1].append(word)
    if not sentences[-1]:
        sentences.pop()
    return sentences


def _satisfaction(instruction: Instruction, sentences: list[list[str]], letters: list[str]) -> float:
    """Mean over the constraints of how far each is met (0..1)."""
    n = len(sentences)
    present = {word for sentence in sentences for word in sentence}
    nouns = _TOPIC_NOUNS[instruction.topic]
    met = [
        max(0.0, 1.0 - abs(n - instruction.count) / instruction.count),
        sum(not nouns.isdisjoint(sentence) for sentence in sentences) / n,
        sum(word in present for word in instruction.required) / len(instruction.required),
    ]
    if instruction.start is not None:
        met.append(float(sentences[0][:1] == [instruction.start]))
    if instruction.end is not None:
        met.append(float(sentences[-1][-1:] == [instruction.end]))
    if instruction.banned is not None:
        met.append(sum(_CLASS_LETTER[instruction.banned] not in line for line in letters) / n)
    if instruction.each is not None:
        met.append(sum(_CLASS_LETTER[instruction.each] in line for line in letters) / n)
    return sum(met) / len(met)
