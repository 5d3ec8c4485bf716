"""A mixture on the command line: what is refused before anything is read, what its fingerprint counts, its plan."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mpo.cache.artifacts import Store
from mpo.config.schema import RunConfig
from mpo.config.source import source_of
from mpo.data.sources import Mixture
from mpo.errors import UserError
from mpo.losses import WMPO
from mpo.pipeline.access import check_inputs
from mpo.pipeline.plan_parts import mixed, parts_line, sketch_parts
from mpo.pipeline.regimes import compose
from mpo.pipeline.rules import check
from mpo.pipeline.runner import _logged
from mpo.pipeline.stage_configs import card
from tests.unit.config.conftest import Load

Made = Callable[..., RunConfig]


def rows(path: Path, count: int, responses: int = 2) -> Path:
    texts, scores = ["y" * 80] * responses, [*range(responses)]
    lines = [json.dumps({"prompt": f"{path.stem} {i:04}", "responses": texts, "scores": scores}) for i in range(count)]
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture
def made(load: Load, tmp_path: Path) -> Made:
    """``made(x=1, **of_b)``: a run on two files, with options of the second part and of the group."""
    one, two = rows(tmp_path / "one.jsonl", 100), rows(tmp_path / "two.jsonl", 30, responses=4)
    base = load("model=small", "data=mixture", "data.source.parts={a:{path:one.jsonl,weight:2},b:{path:two.jsonl}}")
    assert {name: dict(part) for name, part in base.data.source["parts"].items()} == {
        "a": {"path": "one.jsonl", "weight": 2}, "b": {"path": "two.jsonl"},
    }  # fmt: skip

    def changed(
        part: dict[str, object] | None = None, source: dict[str, object] | None = None, **of_data: Any
    ) -> RunConfig:
        parts = {"a": {"path": str(one), "weight": 2}, "b": {"path": str(two), **(part or {})}}
        node = {**base.data.source, "parts": parts, **(source or {})}
        return replace(base, data=replace(base.data, source=node, **of_data))

    return changed


def mixture(config: RunConfig) -> Mixture:
    source = source_of(config.data, ())
    assert isinstance(source, Mixture)
    return source


def fingerprint(config: RunConfig, cache: Path) -> str:
    return Store(cache).fingerprint(compose(config, WMPO()).data)


def test_what_a_fingerprint_counts(made: Made, tmp_path: Path) -> None:
    cache, config = tmp_path / "cache", made()
    before = fingerprint(config, cache)
    others = [made({"weight": 3}), made({"limit": 10}), made({"layout": "response_sets"}), made(split_seed=1),
              made(source={"total": 30}), made(source={"heldout": {"path": "owner/name"}}),
              made({"path": "owner/name"}), made({"path": "owner/name", "revision": "abc"})]  # fmt: skip
    turned = dict(reversed(config.data.source["parts"].items()))
    others.append(made(source={"parts": turned}))  # the first part keeps a prompt that both have
    assert len({before, *(fingerprint(other, cache) for other in others)}) == 1 + len(others)
    elsewhere = shutil.copy(tmp_path / "two.jsonl", tmp_path / "copy.jsonl")
    assert fingerprint(made({"path": str(elsewhere)}), cache) == before
    rows(tmp_path / "two.jsonl", 31)
    assert fingerprint(made(), cache) != before


@pytest.mark.parametrize(
    ("part", "source", "of_data", "message"),
    [
        ({"wieght": 2}, {}, {}, r"data.source.parts.b.wieght: Part has no 'wieght'; did you mean 'weight'\?"),
        ({"weight": 0}, {}, {}, "data.source.parts.b.weight: 0 is out of range"),
        ({"weight": "much"}, {}, {}, "data.source.parts.b.weight: 'much' does not fit; give a number"),
        ({"limit": 0}, {}, {}, "data.source.parts.b.limit: 0 is out of range"),
        ({"path": "nowhere.jsonl"}, {}, {}, "data.source.parts.b.path: there is no file 'nowhere.jsonl'"),
        ({"path": "~no-such-user-here/x"}, {}, {}, "data.source.parts.b.path: .*does not know"),
        ({"path": "???"}, {}, {}, "data.source.parts.b.path: has no value"),
        ({"layout": "pars"}, {}, {}, "data.source.parts.b.layout: unknown layout 'pars'; did you mean 'pairs'"),
        (
            {"layout": "pairs", "score_field": "x"},
            {},
            {},
            "data.source.parts.b.score_field: layout 'pairs' has no score",
        ),
        ({}, {"parts": {}}, {}, "data.source.parts: no part; give some"),
        ({}, {"parts": "one.jsonl"}, {}, "data.source.parts: 'one.jsonl' does not fit; give a mapping"),
        ({}, {"parts": {"a/b": {"path": "x"}}}, {}, "data.source.parts: 'a/b' is no name of a part"),
        ({}, {"total": 0}, {}, "data.source.total: 0 is out of range"),
        ({}, {"heldout": {"weight": 1, "path": "x"}}, {}, "data.source.heldout.weight: Rows has no 'weight'"),
        ({}, {"heldout": {"path": "nowhere.jsonl"}}, {}, "data.source.heldout.path: there is no file"),
        ({}, {}, {"limit": 5}, "data.limit: each part of a mixture has its own; write it below data.source.parts.NAME"),
        ({}, {}, {"layout": "pairs"}, "data.layout: each part of a mixture has its own"),
        ({}, {}, {"heldout_source": "x"}, r"data.heldout_source: a mixture .*data.source.heldout=\{path: FILE"),
    ],
)
def test_refusals(
    made: Made, part: dict[str, object], source: dict[str, object], of_data: dict[str, object], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        check(made(part, source, **of_data))


def test_what_is_shown_of_a_files_place_is_its_name(made: Made, tmp_path: Path) -> None:
    config = made()
    check(config)
    check_inputs(config)
    assert _logged(config)["data"]["source"]["parts"]["b"]["path"] == "two.jsonl"
    assert str(tmp_path) not in f"{card(config)} {_logged(config)['data']}"


def test_the_plan_tells_the_parts_from_their_beginnings(made: Made) -> None:
    source = mixture(made())
    found = sketch_parts(source, 1800, 2048)
    assert parts_line(source, found) == (
        "a (one.jsonl): about 100 sets, weight 2, gives 60; b (two.jsonl): about 30 sets, weight 1, gives 30"
    )
    whole = mixed(source, found)
    assert whole is not None
    assert (whole.sets, whole.responses, whole.prompt_tokens, whole.response_tokens) == (90, 3, 2, 20)


def test_the_plan_says_what_it_does_not_know(made: Made) -> None:
    source = mixture(made({"path": "owner/name"}))
    found = sketch_parts(source, 1800, 2048)
    assert mixed(source, found) is None
    assert parts_line(source, found).endswith("weight 2; b (owner/name): size known once it is read, weight 1")
    source = mixture(made(source={"total": 120}))
    line = parts_line(source, sketch_parts(source, 1800, 2048))
    assert line.endswith("b (two.jsonl): about 30 sets, weight 1, gives 40, which are more than it seems to have")
