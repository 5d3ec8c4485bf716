"""What holds for every sampler: seeds, batches, checks of what it returns, batches kept over a stop."""

from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mpo.config.schema import SampleConfig
from mpo.errors import ConfigError, DataError
from mpo.sample import Draw, Drawn, Request, Sampler, SamplingJob
from mpo.sample.base import draw_seed
from mpo.sample.checked import Bounds, check_sampler, checked_batches, opened
from mpo.sample.drawn import DrawnBatches, remove_batches

STOP = 3
BOUNDS = Bounds(50, 4, frozenset({STOP, 4}))
JOB = SamplingJob("policy", None, False, SampleConfig(n=2, max_new_tokens=4), (STOP, 4), 64)
REQUESTS = [Request([5, 6], [1, 2]), Request([7], [3, 4])]
FINE = Drawn([9, STOP], True, [-1.0, -0.5])
SEVEN = [[0, 1], [2], [3, 4], [5, 6]]


@dataclass(frozen=True)
class Canned(Sampler):
    """Returns, or raises, what a test wants."""

    answer: Any

    @contextmanager
    def open(self, job: SamplingJob) -> Iterator[Draw]:
        if isinstance(self.answer, Exception):
            raise self.answer
        yield lambda requests: self.answer


def drawn_by(answer: Any) -> list[list[Drawn]]:
    with opened(Canned(answer), JOB, BOUNDS) as draw:
        return draw(REQUESTS)


def both(one: Any) -> list[list[Any]]:
    return [[one, FINE], [FINE, FINE]]


def test_what_can_have_been_drawn_is_taken_whatever_its_numbers_are_made_of() -> None:
    numpy = Drawn(np.array([9, 4]), np.True_, np.float32([-1.5, -0.25]))  # type: ignore[arg-type]
    (one, *_), _ = drawn_by(both(numpy))
    assert one == Drawn([9, 4], True, [-1.5, -0.25]) and type(one.token_ids[0]) is int
    for fine in (Drawn([], False), Drawn([1, 2, 0, 49], False), Drawn([STOP], True), Drawn((1,), False, (-0.5,))):
        (one, *_), _ = drawn_by(both(fine))
        assert list(one.token_ids) == list(fine.token_ids) and one.finished is fine.finished


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ([[FINE, FINE]], "returned 1 for 2 requests"),
        (None, "returned a NoneType, not a list for 2 requests"),
        ([[FINE, FINE], [FINE]], "returned 1 for 2 seeds"),
        ([[FINE, FINE], FINE], "returned a Drawn, not a list for 2 seeds"),
        (both("text"), "returned 'text', not a response"),
        (both(Drawn([9, 50, STOP], True)), "returned token 50 of a vocabulary of 50"),
        (both(Drawn([-1, STOP], True)), "returned token -1 of a vocabulary of 50"),
        (both(Drawn([0.5, STOP], True)), "returned tokens [0.5, 3]"),
        (both(Drawn("text", True)), "returned tokens 'text'"),
        (both(Drawn([9] * 5, False)), "returned 5 tokens, at most 4 were asked for"),
        (both(Drawn([9, 9], True)), "returned a finished response without a stop token at its end"),
        (both(Drawn([], True)), "returned a finished response without a stop token at its end"),
        (both(Drawn([9, 4], False)), "returned a response with a stop token at its end, not marked as finished"),
        (both(Drawn([STOP, 9], False)), "returned tokens after a stop token"),
        (both(Drawn([4, STOP], True)), "returned tokens after a stop token"),
        (both(Drawn([9, STOP], True, [-1.0])), "returned log-probs of shape (1,) for 2 tokens"),
        (both(Drawn([9, STOP], True, [-1.0, float("nan")])), "returned log-probs that are not finite numbers"),
        (both(Drawn([9, STOP], True, ["a", None])), "returned log-probs ['a', None]"),
    ],
)  # fmt: skip
def test_what_cannot_have_been_drawn_is_refused_in_one_line(answer: Any, said: str) -> None:
    with pytest.raises(DataError) as caught:
        drawn_by(answer)
    line = str(caught.value)
    assert line.startswith(f"sampler: Canned {said}; ") and "\n" not in line and len(line) < 400


def test_what_a_sampler_raises_is_reported_to_its_author() -> None:
    with pytest.raises(
        ConfigError, match=r"^sampler: Canned raised ValueError: no such engine at test_contract.py:\d+"
    ):
        drawn_by(ValueError("no such engine"))


def test_a_sampler_is_opened_at_the_first_draw_only_and_closed_after_the_last() -> None:
    happened: list[str] = []

    @dataclass(frozen=True)
    class Noted(Sampler):
        @contextmanager
        def open(self, job: SamplingJob) -> Iterator[Draw]:
            happened.append(job.policy)
            try:
                yield lambda requests: both(FINE)
            finally:
                happened.append("closed")

    with opened(Noted(), JOB, BOUNDS):
        pass
    assert happened == []
    with opened(Noted(), JOB, BOUNDS) as draw:
        draw(REQUESTS)
        draw(REQUESTS)
        assert happened == ["policy"]
    assert happened == ["policy", "closed"]
    with pytest.raises(KeyError), opened(Noted(), JOB, BOUNDS) as draw:
        draw(REQUESTS)
        raise KeyError
    assert happened == ["policy", "closed"] * 2


@pytest.mark.parametrize("batches", [[[0, 1]], [[0], [1], [1, 2]], [[0, 1, 2, 3]], []])
def test_batches_that_lose_or_repeat_a_request_are_refused(batches: list[list[int]]) -> None:
    @dataclass(frozen=True)
    class Forgetful(Canned):
        def batches(self, prompt_lengths: Sequence[int], decoding: SampleConfig) -> list[list[int]]:
            return batches

    with pytest.raises(DataError, match="sampler: Forgetful has batches that do not hold each of 3 requests once"):
        checked_batches(Forgetful(None), [4, 5, 6], JOB.decoding)


def test_by_default_requests_are_drawn_in_order_some_at_a_time() -> None:
    found = checked_batches(Canned(None), [1] * 150, JOB.decoding)
    assert [len(batch) for batch in found] == [64, 64, 22] and sum(found, []) == list(range(150))


def test_a_sampler_says_what_is_wrong_before_anything_is_loaded() -> None:
    @dataclass(frozen=True)
    class Unready(Canned):
        def check(self) -> None:
            raise ConfigError("needs a GPU", "sampler", "choose sampler=hf")

    with pytest.raises(ConfigError, match="needs a GPU"):
        check_sampler(Unready(None))
    check_sampler(Canned(None))


def test_seeds_follow_from_names_and_hardly_ever_meet() -> None:
    assert draw_seed(0, 1, "train", "a", 0) == draw_seed(0, 1, "train", "a", 0) == 0x611485E6D686F661
    named = [
        (seed, round_number, split, set_id, number)
        for seed in (0, 1, 12)
        for round_number in (1, 2, 21)
        for split in ("train", "heldout")
        for set_id in ("1", "11", 'a", "b', "é")
        for number in range(12)
    ]
    seeds = [draw_seed(*one) for one in named]
    assert len(set(seeds)) == len(named) and all(0 <= seed < 2**64 for seed in seeds)
    assert 0.4 < np.mean([seed >> 63 for seed in seeds]) < 0.6


def responses(seed: int) -> list[Drawn]:
    """Of one request."""
    values = random.Random(seed)
    logps = tuple(float(np.float32(values.gauss(-3, 2))) for _ in range(2))
    return [Drawn((values.randrange(2**31), STOP), True, logps), Drawn((), False)]


@pytest.mark.parametrize("damage", [lambda data: data[:-9], lambda data: data[: data.rindex(b"ids")]])
def test_a_batch_that_a_kill_has_cut_is_drawn_again(damage: Callable[[bytes], bytes], tmp_path: Path) -> None:
    path = tmp_path / "train.batches.0.jsonl"
    with DrawnBatches(tmp_path, "train", SEVEN) as batches:
        assert batches.missing == [0, 1, 2, 3]
        for number in (1, 3, 0):
            batches.add(number, [responses(position) for position in SEVEN[number]])
    path.write_bytes(damage(path.read_bytes()))
    with DrawnBatches(tmp_path, "train", SEVEN) as batches:
        assert batches.missing == [0, 2] and batches.damaged == 0
        assert batches[2] == responses(2) and batches[6] == responses(6)
        for number in (0, 2):
            batches.add(number, [responses(position) for position in SEVEN[number]])
    with DrawnBatches(tmp_path, "train", SEVEN) as batches:
        assert batches.missing == []
        assert [batches[position] for position in range(7)] == [responses(position) for position in range(7)]


def test_a_damaged_batch_alone_is_drawn_again_and_so_is_one_of_other_requests(tmp_path: Path) -> None:
    path = tmp_path / "train.batches.0.jsonl"
    with DrawnBatches(tmp_path, "train", SEVEN) as batches:
        for number in range(4):
            batches.add(number, [responses(position) for position in SEVEN[number]])
    path.write_bytes(path.read_bytes().replace(b'"finished": true', b'"finished": null', 1))
    with DrawnBatches(tmp_path, "train", SEVEN) as batches:
        assert batches.damaged == 1 and batches.missing == [0]
    with DrawnBatches(tmp_path, "train", [[0, 1], [2], [4, 3], [5, 6]]) as batches:
        assert batches.missing == [0, 2] and batches[5] == responses(5)


def test_each_process_has_a_journal_of_its_own_and_all_are_read(tmp_path: Path) -> None:
    with DrawnBatches(tmp_path, "train", SEVEN, 0) as first, DrawnBatches(tmp_path, "train", SEVEN, 1) as second:
        for number, batches in ((0, first), (1, second), (2, first), (3, second)):
            batches.add(number, [responses(position) for position in SEVEN[number]])
    cut = tmp_path / "train.batches.1.jsonl"
    cut.write_bytes(cut.read_bytes()[:-9])  # as a kill leaves it; another process does not touch it
    with DrawnBatches(tmp_path, "train", SEVEN, 0) as batches:
        assert batches.missing == [3]
        batches.add(3, [responses(position) for position in SEVEN[3]])
    with DrawnBatches(tmp_path, "train", SEVEN, 1) as batches:
        assert [batches[position] for position in range(7)] == [responses(position) for position in range(7)]
    remove_batches(tmp_path, "train")
    assert not list(tmp_path.iterdir())


def test_samplers_are_checked_without_torch() -> None:
    code = "import sys, mpo.sample, mpo.sample.checked; mpo.sample.HFSampler().check(); print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"
