"""The reference cache: right numbers, whoever computed them, for the right sets only."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from mpo.errors import DataError
from mpo.layout.batch import collate
from mpo.logprobs.mismatched import mismatched_pair, mismatched_pairs
from mpo.logprobs.reference import Reference, compute_reference
from tests.distributed.world import TokenSets, spawn_reference, tiny_policy


@pytest.mark.parametrize(("budget", "forwards"), [(10**6, 3), (18, 7)])
def test_logps_are_those_of_the_policy(tmp_path: Path, budget: int, forwards: int) -> None:
    policy, sets = tiny_policy(), TokenSets(7)
    seen: list[tuple[int, int]] = []
    compute_reference(policy, sets, tmp_path, 3, budget, on_progress=lambda done, total: seen.append((done, total)))
    reference = Reference.load(tmp_path, sets)
    assert len(seen) == forwards  # a budget below most sets' tokens: each alone, the large ones in pieces
    assert seen[-1] == (7, 7)
    assert reference.mismatched is None
    for i in range(7):
        with torch.no_grad():
            expected = policy(collate([sets[i]])).token_logps_BKT[0]
        found = reference.logps(i)
        assert [len(logps) for logps in found] == [len(ids) for ids in sets[i].response_ids]
        for k, logps in enumerate(found):
            assert logps.dtype == np.float32
            np.testing.assert_allclose(logps, expected[k, : len(logps)], atol=1e-5)


@pytest.mark.parametrize("stop_after", [1, 2, 4, 5])
def test_a_stopped_pass_goes_on_bit_by_bit(tmp_path: Path, stop_after: int) -> None:
    policy, sets = tiny_policy(), TokenSets(7)
    (tmp_path / "whole").mkdir()
    (tmp_path / "stopped").mkdir()
    calls: list[tuple[int, int]] = []

    def note(done: int, total: int) -> None:
        calls.append((done, total))
        if len(calls) == stop_after:
            raise KeyboardInterrupt

    compute_reference(policy, sets, tmp_path / "whole", 3, 10**6, mismatched_seed=3)
    with pytest.raises(KeyboardInterrupt):
        compute_reference(policy, sets, tmp_path / "stopped", 3, 10**6, on_progress=note, mismatched_seed=3)
    notes = next((tmp_path / "stopped").glob("*.notes-0"))
    with notes.open("ab") as file:
        file.write(b"3 1")  # a line that a kill has cut
    compute_reference(policy, sets, tmp_path / "stopped", 3, 10**6, on_progress=note, mismatched_seed=3)
    assert calls[-1] == (14, 14) and len(calls) == 6  # three forward passes of sets, three of pairs, none twice
    files = sorted(path.name for path in (tmp_path / "whole").iterdir())
    assert files == sorted(path.name for path in (tmp_path / "stopped").iterdir())
    for name in files:
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "stopped" / name).read_bytes()
    compute_reference(policy, sets, tmp_path / "stopped", 3, 10**6, on_progress=note, mismatched_seed=3)
    assert len(calls) == 6


def test_mismatched_pairs_are_responses_under_the_next_prompt(tmp_path: Path) -> None:
    policy, sets = tiny_policy(), TokenSets(5)
    compute_reference(policy, sets, tmp_path, 2, 10**6, mismatched_seed=3)
    reference = Reference.load(tmp_path, sets)
    assert reference.mismatched is not None
    for i in range(5):
        pair = reference.pair(sets, i)
        assert np.array_equal(pair.prompt_ids, sets[(i + 1) % 5].prompt_ids)
        assert any(np.array_equal(pair.response_ids[0], ids) for ids in sets[i].response_ids)
        with torch.no_grad():
            expected = float(policy(collate([pair])).logps_BK[0, 0])
        assert reference.mismatched[i] == pytest.approx(expected, rel=1e-5)


def test_a_mismatched_pair_passes_no_limit_that_matched_ones_keep() -> None:
    sets = TokenSets(5)
    long = max(range(5), key=lambda i: len(sets[i].prompt_ids))
    prompt = len(sets[long].prompt_ids)
    k = max(range(len(sets[0].response_ids)), key=lambda k: len(sets[0].response_ids[k]))
    assert len(sets[0].response_ids[k]) > 2
    pair = mismatched_pair(sets[0], sets[long], k, prompt + 2)
    assert len(pair.prompt_ids) == prompt
    assert np.array_equal(pair.response_ids[0], sets[0].response_ids[k][:2])


def test_draws_of_mismatched_responses_follow_the_seed() -> None:
    prompts, counts = [bytes([i]) for i in range(50)], [4] * 50
    assert mismatched_pairs(prompts, counts, 1) == mismatched_pairs(prompts, counts, 1)
    assert mismatched_pairs(prompts, counts, 1) != mismatched_pairs(prompts, counts, 2)
    assert {response for _, response in mismatched_pairs(prompts, counts, 1)} == {0, 1, 2, 3}


def test_a_mismatched_pair_never_has_its_own_prompt() -> None:
    prompts = [b"a", b"a", b"b", b"b", b"b", b"c", b"a"]
    others = [other for other, _ in mismatched_pairs(prompts, [2] * 7, 1)]
    assert others == [2, 2, 5, 5, 5, 6, 2]
    for alike in ([b"a"], [b"a"] * 3):
        with pytest.raises(DataError, match="no set has another prompt"):
            mismatched_pairs(alike, [4] * len(alike), 1)


def test_two_processes_write_what_one_writes(tmp_path: Path) -> None:
    for world_size in (1, 2):
        (tmp_path / str(world_size)).mkdir()
        assert spawn_reference(tmp_path / str(world_size), world_size) == [0] * world_size
    one, two = (np.load(tmp_path / name / "logps.npy") for name in "12")
    np.testing.assert_allclose(two, one, atol=1e-5)


def test_foreign_reference_is_refused(tmp_path: Path) -> None:
    sets = TokenSets(6)
    with pytest.raises(DataError, match="no reference log-probs here"):
        Reference.load(tmp_path, sets)
    compute_reference(tiny_policy(), sets, tmp_path, 4, 10**6)
    with pytest.raises(DataError, match="reference of 6 sets, but there are 5"):
        Reference.load(tmp_path, TokenSets(5))
    renamed = TokenSets(6)
    renamed._sets[2] = replace(renamed[2], id="other")
    with pytest.raises(DataError, match="reference set 2 is 'set-2', but it should be 'other'"):
        Reference.load(tmp_path, renamed)
    with pytest.raises(DataError, match="other numbers of responses or tokens"):
        Reference.load(tmp_path, TokenSets(6, seed=1))
    retokenised = TokenSets(6)
    retokenised.fingerprint = "another"
    with pytest.raises(DataError, match="the same ids but other tokens"):
        Reference.load(tmp_path, retokenised)


def test_logps_that_are_not_finite_name_their_set(tmp_path: Path) -> None:
    policy, sets = tiny_policy(), TokenSets(4)
    tokens = [set(np.concatenate([sets[i].prompt_ids, *sets[i].response_ids]).tolist()) for i in range(4)]
    alone = set(sets[2].prompt_ids.tolist()) - tokens[0] - tokens[1] - tokens[3]
    with torch.no_grad():
        policy.base.get_input_embeddings().weight[min(alone)] = torch.nan
    with pytest.raises(DataError, match="set-2: a reference log-prob is not finite"):
        compute_reference(policy, sets, tmp_path, 1, 10**6)


@pytest.mark.parametrize("kind", ["notes", "numbers"])
@pytest.mark.parametrize("place", [0.1, 0.6, 0.95])
def test_damage_to_what_a_stopped_pass_has_noted_is_computed_again(tmp_path: Path, kind: str, place: float) -> None:
    policy, sets = tiny_policy(), TokenSets(7)
    for name in ("whole", "damaged"):
        (tmp_path / name).mkdir()
    compute_reference(policy, sets, tmp_path / "whole", 3, 10**6)

    def stop(done: int, total: int) -> None:
        if done == total:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        compute_reference(policy, sets, tmp_path / "damaged", 3, 10**6, on_progress=stop)
    (file,) = (tmp_path / "damaged").glob(f"logps.npy.{kind}-0")
    content = bytearray(file.read_bytes())
    content[int(place * len(content))] ^= 1
    file.write_bytes(content)
    warnings: list[str] = []
    compute_reference(policy, sets, tmp_path / "damaged", 3, 10**6, on_warning=warnings.append)
    assert warnings == [
        "log-probs of an earlier attempt are damaged (logps.npy); they are computed again from there on"
    ]
    for name in ("logps.npy", "index.json"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "damaged" / name).read_bytes()


@pytest.mark.parametrize("name", ["logps.npy", "index.json"])
def test_damage_to_a_finished_part_of_a_stage_is_computed_again(tmp_path: Path, name: str) -> None:
    policy, sets = tiny_policy(), TokenSets(7)
    compute_reference(policy, sets, tmp_path, 3, 10**6)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    content = bytearray(before[name])
    content[-9] ^= 1
    (tmp_path / name).write_bytes(content)
    warnings: list[str] = []
    compute_reference(policy, sets, tmp_path, 3, 10**6, on_warning=warnings.append)
    assert len(warnings) == 1 and f"are damaged ({name} " in warnings[0]
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
