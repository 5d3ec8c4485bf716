"""What a stream of response sets holds: counts, scores, lengths, duplicates. Memory: a few numbers per response."""

from __future__ import annotations

import hashlib
import itertools
from array import array
from collections import Counter

import numpy as np

from mpo.data.split import prompt_key
from mpo.types import ResponseSet


class SetStatistics:
    """Collects sets one by one (``add``), then reports on them (``lines``)."""

    def __init__(self) -> None:
        self.sets = 0
        self.prompts: set[bytes] = set()
        """Digests of the normalised prompts."""
        self.sizes: Counter[int] = Counter()
        self.equal_score_sets = 0
        self.scored_pairs = self.tied_pairs = 0
        self.longer_wins = 0.0
        self.carrying: Counter[str] = Counter()
        """Sets that have more than texts, by what they have."""
        self._scores = array("d")
        self._lengths = {name: array("q") for name in ("prompt words", "prompt chars", "resp. words", "resp. chars")}

    def add(self, one: ResponseSet) -> None:
        """Count a set in."""
        self.sets += 1
        self.prompts.add(hashlib.blake2b(prompt_key(one.prompt).encode(), digest_size=16).digest())
        self.sizes[len(one.responses)] += 1
        turns = [*one.prompt, *(response.message for response in one.responses)]
        self.carrying["system turns"] += one.prompt[0].role == "system"
        self.carrying["tools"] += one.tools is not None
        self.carrying["tool calls"] += any(turn.tool_calls for turn in turns)
        self.carrying["reasoning"] += any(turn.reasoning for turn in turns)
        self._lengths["prompt words"].append(sum(len(turn.content.split()) for turn in one.prompt))
        self._lengths["prompt chars"].append(sum(len(turn.content) for turn in one.prompt))
        self._lengths["resp. words"].extend(len(response.text.split()) for response in one.responses)
        self._lengths["resp. chars"].extend(len(response.text) for response in one.responses)
        scored = [(each.score, len(each.text)) for each in one.responses if each.score is not None]
        self._scores.extend(score for score, _ in scored)
        if len(scored) > 1 and len({score for score, _ in scored}) == 1:
            self.equal_score_sets += 1
        for (score_a, chars_a), (score_b, chars_b) in itertools.combinations(scored, 2):
            if score_a == score_b:
                self.tied_pairs += 1
                continue
            self.scored_pairs += 1
            if chars_a == chars_b:
                self.longer_wins += 0.5
            elif (chars_a > chars_b) == (score_a > score_b):
                self.longer_wins += 1

    def lines(self) -> list[str]:
        """The findings, one per line."""
        sizes = ", ".join(f"{size}: {count}" for size, count in sorted(self.sizes.items()))
        lines = [
            _line("sets", f"{self.sets}"),
            _line("responses per set", sizes or "-"),
            _line("repeated prompts", f"{self.sets - len(self.prompts)}"),
        ]
        lines += [_line(f"with {name}", f"{count}") for name, count in self.carrying.items() if count]
        lines += [_line(name, _percentiles(values)) for name, values in self._lengths.items() if values]
        if not self._scores:
            return [*lines, _line("scores", "none")]
        scores = np.frombuffer(self._scores)
        spread = f"min {scores.min():g}, mean {scores.mean():.4g}, max {scores.max():g}, std {scores.std():.4g}"
        lines += [_line("scores", spread), _line("equal-score sets", f"{self.equal_score_sets}")]
        if pairs := self.scored_pairs + self.tied_pairs:
            lines.append(_line("tied pairs", f"{self.tied_pairs} of {pairs} ({self.tied_pairs / pairs:.1%})"))
        if self.scored_pairs:
            share = self.longer_wins / self.scored_pairs
            lines.append(_line("longer one wins", f"{share:.1%} of {self.scored_pairs} pairs with different scores"))
        return lines


def _line(name: str, value: str) -> str:
    return f"{name:<18}{value}"


def _percentiles(values: array[int]) -> str:
    numbers = np.frombuffer(values, dtype=np.int64)
    low, half, high, top = np.percentile(numbers, [5, 50, 95, 99])
    return (
        f"mean {numbers.mean():.0f}, p5 {low:.0f}, p50 {half:.0f}, p95 {high:.0f}, p99 {top:.0f}, max {numbers.max()}"
    )
