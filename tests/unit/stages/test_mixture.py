"""The data stage on a mixture: shares, prompts of several parts, what is held out, and what is refused by part."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mpo.cache.stage import File
from mpo.data.sources import Mixture
from mpo.data.sources.mixture import Part, Rows
from mpo.data.split import prompt_key
from mpo.data.store import read_stored_sets
from mpo.errors import DataError
from mpo.stages import data
from mpo.stages.context import StageContext
from mpo.stages.nodes import data as node
from mpo.stages.summary import Summary
from mpo.types import ResponseSet

CONFIG = node.Config(max_skipped_share=0.1, needs_scores=True, needs_responses=True, contrasts=True)
READ, REPEATED, TAKEN, TRAINED = "sets read", "prompts in earlier parts", "taken", "to train on"


def rows(path: Path, prompts: Iterable[str], *more: str, **columns: Any) -> str:
    own = [
        json.dumps({"id": str(i), "prompt": prompt, "responses": ["a", "b b"], "scores": [1, 2], **columns})
        for i, prompt in enumerate(prompts)
    ]
    path.write_text("\n".join([*own, *more]) + "\n")
    return str(path)


@pytest.fixture
def parts(tmp_path: Path) -> dict[str, Part]:
    """Weights 2 and 1; ten of the second's prompts are the first's, in other letters."""
    own = [f"own {i}" for i in range(40)] + [f"GIVEN  {i}" for i in range(10)]
    return {
        "given": Part(rows(tmp_path / "given.jsonl", (f"given {i}" for i in range(200))), weight=2),
        "own": Part(rows(tmp_path / "own.jsonl", own), weight=1),
    }


class Built:
    """What the stage has written."""

    def __init__(self, folder: Path) -> None:
        self.summary = Summary.read(folder)
        self.train, self.heldout = (list(read_stored_sets(folder / f"{name}.parquet")) for name in ("train", "heldout"))
        assert [len(self.train), len(self.heldout)] == [self.summary.fact("sets", x) for x in ("train", "heldout")]

    def facts(self, part: str) -> dict[str, Any]:
        found: dict[str, Any] = self.summary.fact(node.PARTS)[part]
        return found


def build(
    tmp_path: Path,
    parts: dict[str, Part],
    total: int | None = None,
    heldout_rows: Rows | None = None,
    out: str = "out",
    **changed: Any,
) -> Built:
    """Run the stage as its own process does, from the context that is written for it."""
    Mixture(parts, total, heldout_rows)  # as the configuration would be checked
    (tmp_path / out).mkdir()
    config = replace(
        CONFIG,
        parts=[replace(part, path=name) for name, part in parts.items()],
        total=total,
        heldout_rows=None if heldout_rows is None else replace(heldout_rows, path=""),
        **changed,
    )
    inputs: node.Inputs[Path] = node.Inputs(
        parts={name: File(part.path) for name, part in parts.items()},
        heldout_source=None if heldout_rows is None else File(heldout_rows.path),
    )
    written = StageContext("data", config, node.Settings(), inputs, tmp_path / out).write()
    data.run(StageContext.read(written))
    return Built(tmp_path / out)


def by_part(sets: list[ResponseSet]) -> Counter[str]:
    return Counter(one.id.partition("/")[0] for one in sets)


def prompts(sets: list[ResponseSet]) -> set[str]:
    return {prompt_key(one.prompt) for one in sets}


def test_parts_give_their_shares_and_prompts_occur_once(tmp_path: Path, parts: dict[str, Part]) -> None:
    built = build(tmp_path, parts)
    assert by_part(built.train) == {"given": 80, "own": 40}
    assert len({one.id for one in built.train}) == 120 == len(prompts(built.train))  # though both files count from 0
    assert built.summary.skipped == {"train": {f"{data.IN_EARLIER_PART} (own)": 10}, "heldout": {}}
    assert built.facts("given") == {"weight": 2.0, READ: 200, REPEATED: 0, TAKEN: 80, TRAINED: 80}
    assert built.facts("own") == {"weight": 1.0, READ: 50, REPEATED: 10, TAKEN: 40, TRAINED: 40}
    assert built.summary.fact("source") == "mixture of given, own"


def test_the_first_part_of_the_configuration_keeps_a_prompt_that_several_have(
    tmp_path: Path, parts: dict[str, Part]
) -> None:
    built = build(tmp_path, dict(reversed(parts.items())))
    assert built.facts("own")[READ] == 50 and built.facts("own")[REPEATED] == 0
    assert built.facts("given")[REPEATED] == 10 and by_part(built.train) == {"own": 50, "given": 100}


def test_equal_prompts_within_a_part_stay(tmp_path: Path) -> None:
    part = Part(rows(tmp_path / "a.jsonl", ["one", "one", "two"]))
    assert by_part(build(tmp_path, {"a": part}).train) == {"a": 3}


def test_a_part_may_be_read_in_part(tmp_path: Path, parts: dict[str, Part]) -> None:
    built = build(tmp_path, {**parts, "given": replace(parts["given"], limit=20)})
    assert built.facts("given")[READ] == 20 and by_part(built.train) == {"given": 20, "own": 10}


def test_the_seed_alone_decides_which_sets(tmp_path: Path, parts: dict[str, Part]) -> None:
    one, again, other = (
        [each.id for each in build(tmp_path, parts, 60, out=out, split_seed=seed, heldout=0.2).train]
        for out, seed in (("1", 0), ("2", 0), ("3", 1))
    )
    assert one == again and set(one) != set(other)


@pytest.mark.parametrize("heldout", [0.3, 30])
def test_no_prompt_is_on_both_sides(tmp_path: Path, parts: dict[str, Part], heldout: float) -> None:
    twice = Part(rows(tmp_path / "twice.jsonl", [f"twice {i // 2}" for i in range(60)]))
    built = build(tmp_path, {**parts, "twice": twice}, heldout=heldout)
    assert by_part(built.train + built.heldout) == {"given": 80, "own": 40, "twice": 40}
    assert built.heldout and not prompts(built.train) & prompts(built.heldout)
    assert sum(built.facts(name)[TRAINED] for name in (*parts, "twice")) == len(built.train)
    assert heldout != 30 or len(built.heldout) == 30


def test_given_held_out_prompts_are_left_out_of_every_part_before_the_shares_are_taken(
    tmp_path: Path, parts: dict[str, Part]
) -> None:
    pairs = [json.dumps({"prompt": prompt, "chosen": "a", "rejected": "b"}) for prompt in ("Given 1", "own 2", "new")]
    (tmp_path / "test.jsonl").write_text("\n".join(pairs) + "\n")
    built = build(tmp_path, parts, heldout_rows=Rows(str(tmp_path / "test.jsonl")), heldout=0.1)
    assert len(built.heldout) == 3 and not prompts(built.train) & prompts(built.heldout)
    assert by_part(built.train) == {"given": 78, "own": 39}
    assert built.summary.skipped["train"] == {
        f"{data.IS_HELD_OUT} (given)": 1, f"{data.IN_EARLIER_PART} (own)": 10, f"{data.IS_HELD_OUT} (own)": 1,
    }  # fmt: skip


def test_a_part_without_enough_sets_is_refused(tmp_path: Path, parts: dict[str, Part]) -> None:
    with pytest.raises(DataError, match=r"part 'own' has 40 sets, its share of 150 is 50.*give at most 120"):
        build(tmp_path, parts, 150)


def test_what_is_wrong_in_a_part_is_counted_for_it(tmp_path: Path, parts: dict[str, Part]) -> None:
    bad = Part(rows(tmp_path / "bad.jsonl", (f"bad {i}" for i in range(40)), "{", history=[["x", "y"]]))
    built = build(tmp_path, {**parts, "bad": bad})
    assert built.summary.skipped["train"]["broken_json (bad)"] == 1
    assert built.summary.warnings["train"] == {"unused_field (history) (bad)": 40}
    assert any(f"{bad.path}:41: broken_json" in problem for problem in built.summary.problems)


def test_each_part_must_be_usable_by_itself(tmp_path: Path, parts: dict[str, Part]) -> None:
    """Five broken rows are few of all, and many of these."""
    bad = Part(rows(tmp_path / "bad.jsonl", (f"bad {i}" for i in range(20)), *["{"] * 5))
    with pytest.raises(DataError, match=r"bad.jsonl:21: broken_json.*5 of 25 sets of part 'bad' cannot be used"):
        build(tmp_path, {**parts, "bad": bad})


def test_a_part_without_scores_where_they_are_needed(tmp_path: Path, parts: dict[str, Part]) -> None:
    bare = Part(rows(tmp_path / "bare.jsonl", (f"bare {i}" for i in range(9)), scores=None))
    with pytest.raises(DataError, match=r"bare.jsonl:1: no_score.*of part 'bare'.*data.source.parts.bare.score_field"):
        build(tmp_path, {**parts, "bare": bare})


@pytest.mark.parametrize("layout", ["auto", "prompts"])
def test_prompts_alone_are_refused_by_the_name_of_their_part(
    tmp_path: Path, parts: dict[str, Part], layout: str
) -> None:
    file = tmp_path / "alone.jsonl"
    file.write_text("".join(json.dumps({"prompt": f"alone {i}"}) + "\n" for i in range(9)))
    mixed = {**parts, "alone": Part(str(file), layout=layout)}
    with pytest.raises(DataError, match=r"part 'alone' \(alone.jsonl\): prompts alone, .*regime=on_policy"):
        build(tmp_path, mixed)
    sampled = build(tmp_path, mixed, out="2", needs_responses=False, needs_scores=False, contrasts=False)
    assert by_part(sampled.train)["alone"] == 9


def test_a_mixture_is_a_source_like_any_other(parts: dict[str, Part]) -> None:
    source = Mixture(parts)
    sets = list(source.read_sets(1, lambda _: None))
    assert len({one.id for one in sets}) == 250 and by_part(sets) == {"given": 200, "own": 50}
    assert source.read_heldout(lambda _: None) is None and source.count(1) is None and Mixture(parts, 9).count(1) == 9
