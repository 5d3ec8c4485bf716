from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpo.errors import ConfigError, DataError
from mpo.testbed import world
from mpo.testbed.world import CLASSES, CLOSERS, COUNTS, OPENERS, TOPICS, VERBS, Instruction, generate_instructions

instructions = st.builds(
    Instruction,
    topic=st.sampled_from(sorted(TOPICS)),
    count=st.sampled_from(COUNTS),
    required=st.lists(st.sampled_from(VERBS), min_size=1, max_size=3).map(tuple),
    start=st.none() | st.sampled_from(OPENERS),
    end=st.none() | st.sampled_from(CLOSERS),
    banned=st.none() | st.sampled_from(sorted(CLASSES)),
    each=st.none() | st.sampled_from(sorted(CLASSES)),
)


@given(instructions)
def test_parse_undoes_text(instruction: Instruction) -> None:
    assert Instruction.parse(instruction.text) == instruction
    assert set(instruction.text.split()) <= set(world.VOCABULARY)


def test_words_are_distinct() -> None:
    assert len(set(world.VOCABULARY)) == len(world.VOCABULARY) == 105


@pytest.mark.parametrize(
    "text",
    [
        "",
        "tell me a joke",
        "write 3 sentences about mars ; use : rose",
        "write 9 sentences about garden ; use : rose",
        "write 3 sentences about garden ; use : computer",
        "write 3 sentences about garden ; use : rose ; no verbs",
        "write 3 sentences about garden ; use : rose ; each with names",
    ],
)
def test_foreign_prompt_is_a_data_error(text: str) -> None:
    with pytest.raises(DataError):
        Instruction.parse(text)


def test_an_instruction_of_unknown_parts_is_a_data_error() -> None:
    with pytest.raises(DataError):
        Instruction("garden", 3, ("rose",), each="verbs")
    with pytest.raises(DataError):
        Instruction("garden", 3, ())


def test_generated_instructions_are_consistent() -> None:
    for instruction in generate_instructions(500, 3, "demonstration"):
        extras = [instruction.start, instruction.end, instruction.banned, instruction.each]
        assert 1 <= sum(extra is not None for extra in extras) <= 2
        assert instruction.banned is None or instruction.banned != instruction.each
        if instruction.banned is not None:
            assert not set(instruction.required) & set(CLASSES[instruction.banned])


def test_splits_share_no_prompt_and_repeat_none() -> None:
    texts = {
        split: [i.text for seed in (0, 1) for i in generate_instructions(800, seed, split)]
        for split in ("demonstration", "preference", "heldout")
    }
    for split, members in texts.items():
        assert len(set(members[:800])) == 800
        assert {world.split_of(text) for text in members} == {split}
    assert not set(texts["demonstration"]) & set(texts["heldout"])
    assert not set(texts["preference"]) & (set(texts["demonstration"]) | set(texts["heldout"]))


def test_seed_decides_and_smaller_is_a_prefix() -> None:
    first = list(generate_instructions(20, 0, "preference"))
    assert list(generate_instructions(50, 0, "preference"))[:20] == first
    assert list(generate_instructions(20, 1, "preference")) != first


def test_unknown_split_is_a_config_error() -> None:
    with pytest.raises(ConfigError, match="preference"):
        next(generate_instructions(1, 0, "train"))  # type: ignore[arg-type]


def test_asking_for_more_prompts_than_exist_stops(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(world, "_MOST_REPEATS", 2)
    with pytest.raises(ConfigError, match="too few prompts"):
        list(generate_instructions(100, 0, "heldout"))
