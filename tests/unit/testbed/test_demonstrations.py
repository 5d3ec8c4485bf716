from __future__ import annotations

import hashlib
import random
import statistics
import subprocess
import sys
from pathlib import Path

import pytest

from mpo.testbed.demonstrations import (
    QUALITIES,
    demonstrate,
    demonstration_sets,
    generate_demonstrations,
    prompt_sets,
)
from mpo.testbed.reward import true_reward
from mpo.testbed.world import VOCABULARY, generate_instructions

ROOT = Path(__file__).parents[3]
EXPECTED_HASH = "d60e6e29a1b89c7ea61b05a8aea0d1968d2242a664f4efa95d975bc13072383e"
HASH_SCRIPT = (
    "import hashlib; from mpo.testbed.demonstrations import generate_demonstrations as g; "
    "print(hashlib.sha256(repr(list(g(200, 0))).encode()).hexdigest())"
)


def test_the_same_seed_gives_the_same_demonstrations_in_every_process() -> None:
    here = hashlib.sha256(repr(list(generate_demonstrations(200, 0))).encode()).hexdigest()
    there = subprocess.run(
        [sys.executable, "-c", HASH_SCRIPT],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
        env={"PYTHONHASHSEED": "123"},
    )
    assert here == there.stdout.strip() == EXPECTED_HASH


def test_importing_the_world_imports_no_torch() -> None:
    script = "import sys, mpo.testbed.judge, mpo.testbed.demonstrations; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False, cwd=ROOT).returncode == 0


def test_perfect_quality_scores_ten() -> None:
    rng = random.Random(0)
    for instruction in generate_instructions(500, 5, "demonstration"):
        response = demonstrate(instruction, 1.0, rng)
        assert true_reward(instruction.text, response) == pytest.approx(10.0), (instruction.text, response)


def test_reward_rises_with_quality() -> None:
    rng = random.Random(0)
    instructions = list(generate_instructions(600, 5, "demonstration"))
    low, middle, high = (
        statistics.fmean(true_reward(i.text, demonstrate(i, quality, rng)) for i in instructions)
        for quality in QUALITIES
    )
    assert low + 1.5 < middle < high - 1.5
    assert high > 9.0


def test_reward_and_length_are_nearly_independent() -> None:
    pairs = list(generate_demonstrations(3000, 2))
    rewards = [true_reward(prompt, response) for prompt, response in pairs]
    lengths = [len(response.split()) for _, response in pairs]
    assert abs(statistics.correlation(rewards, lengths)) < 0.1
    assert 15 < statistics.fmean(lengths) < 25 and max(lengths) <= 72


def test_responses_use_known_words_only() -> None:
    known = set(VOCABULARY)
    assert all(set(response.split()) <= known for _, response in generate_demonstrations(500, 3))


def test_sets_carry_the_same_texts_under_stable_ids() -> None:
    sets = list(demonstration_sets(3, 0))
    assert [s.id for s in sets] == ["demo-000000", "demo-000001", "demo-000002"]
    assert [(s.prompt[0].content, s.responses[0].text) for s in sets] == list(generate_demonstrations(3, 0))
    assert all(s.prompt[0].role == "user" and len(s.responses) == 1 for s in sets)


def test_prompt_sets_have_no_responses() -> None:
    sets = list(prompt_sets(3, 0, "heldout"))
    assert [s.id for s in sets] == ["heldout-000000", "heldout-000001", "heldout-000002"]
    assert [s.prompt[0].content for s in sets] == [i.text for i in generate_instructions(3, 0, "heldout")]
    assert all(s.responses == () for s in sets)
