from __future__ import annotations

import pytest

from mpo.data.split import prompt_key, split_heldout, split_rounds, take_fraction
from mpo.errors import ConfigError, DataError
from mpo.types import Message

KEYS = [f"prompt {i % 900}" for i in range(1000)]  # the first hundred prompts occur twice


def test_prompt_key_ignores_case_width_space_and_system_turns() -> None:
    one = prompt_key([Message("system", "s"), Message("user", "  Ｗhat\n IS it? ")])
    assert one == prompt_key([Message("user", "what is  it?")])
    assert one != prompt_key([Message("user", "what is it")])
    assert prompt_key([Message("user", "a"), Message("assistant", "b")]) != prompt_key([Message("user", "a b")])


@pytest.mark.parametrize("heldout", [0.2, 200, 0, 1])
def test_heldout_parts_no_prompt_and_meets_a_count(heldout: float) -> None:
    split = split_heldout(KEYS, heldout, seed=3)
    assert sorted(split.train + split.heldout) == list(range(1000))
    assert not {KEYS[i] for i in split.train} & {KEYS[i] for i in split.heldout}
    if isinstance(heldout, int):
        assert len(split.heldout) == heldout
    else:
        assert 150 < len(split.heldout) < 250
    assert split == split_heldout(KEYS, heldout, seed=3)
    assert heldout == 0 or split != split_heldout(KEYS, heldout, seed=4)


def test_a_share_keeps_each_prompt_on_its_side_when_data_is_added() -> None:
    before, after = split_heldout(KEYS[:500], 0.3, 0), split_heldout(KEYS, 0.3, 0)
    assert before.heldout == tuple(i for i in after.heldout if i < 500)


def test_heldout_errors() -> None:
    with pytest.raises(ConfigError, match="neither a share"):
        split_heldout(KEYS, 1.5, 0)
    with pytest.raises(ConfigError, match="cannot hold out 1000 of 1000"):
        split_heldout(KEYS, 1000, 0)
    with pytest.raises(DataError, match="exactly 3 sets without parting.*ask for 2"):
        split_heldout(["a", "a", "b", "b"], 3, 0)


def test_fractions_are_nested() -> None:
    quarter, half, whole = (take_fraction(KEYS, share, 1) for share in (0.25, 0.5, 1.0))
    assert (len(quarter), len(half), len(whole)) == (250, 500, 1000)
    assert set(quarter) < set(half) < set(whole)
    assert take_fraction(KEYS, 1e-9, 1) and take_fraction(KEYS, 0.25, 2) != quarter
    with pytest.raises(ConfigError, match="not a share"):
        take_fraction(KEYS, 0.0, 1)


def test_rounds_are_disjoint_by_prompt_and_cover_all() -> None:
    rounds = split_rounds(KEYS, 3, 5)
    assert sorted(sum(rounds, ())) == list(range(1000))
    prompts = [{KEYS[i] for i in part} for part in rounds]
    assert [len(part) for part in prompts] == [300, 300, 300]
    assert not prompts[0] & prompts[1] | prompts[1] & prompts[2] | prompts[0] & prompts[2]
    with pytest.raises(ConfigError, match="2 different prompts into 3 rounds"):
        split_rounds(["a", "b", "a"], 3, 0)
