from __future__ import annotations

import base64
import dataclasses
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from mpo.errors import DataError
from mpo.evaluate.records import Estimate, SampleRow
from mpo.report.page import write_run_page
from mpo.report.records import RoundRow, RunReport, ScoredResponse
from mpo.track.profile import Profile
from tests.unit.report.conftest import MakeRun

ATTACK = "<script>alert('x')</script><img src=http://evil.example/a.png onerror=alert(1)>{{ 7*7 }}"


class Tags(HTMLParser):
    """Collects tags, attributes and text of a page, as a browser would see them."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.text += " "
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_data(self, data: str) -> None:
        if self.tags[-1:] != ["style"]:
            self.text += data


def test_page_shows_the_numbers_and_says_micro_scale(make_run: MakeRun, tmp_path: Path) -> None:
    page = write_run_page(tmp_path / "out", make_run())
    assert page == tmp_path / "out" / "report.html"
    text = " ".join(Tags(page.read_text(encoding="utf-8")).text.split())
    assert "micro-scale testbed" in text
    assert "A policy trained from scratch, trained with MPO on testbed, off-policy." in text
    assert "True reward 6.500 ± 0.050 points (starting policy 4.310 ± 0.050)" in text
    for shown in ("0.792 ± 0.012", "longer response wins 0.55", "2 min 08 s", "1.6 GiB", "cached", "one_response 3"):
        assert shown in text
    for shown in ("truncated 17", "4,000", "torch 2.13.0", "0123456789abcdef", "precision: bf16", "a made-up machine"):
        assert shown in text


def test_page_is_whole_in_itself_with_pictures_beside_it(make_run: MakeRun, tmp_path: Path) -> None:
    page = write_run_page(tmp_path, make_run(rounds=2))
    html = page.read_text(encoding="utf-8")
    tags = Tags(html)
    assert not {"script", "link", "iframe", "object"} & set(tags.tags)
    assert not re.search(r"https?://|url\(|@import", html)
    sources = [value for name, value in tags.attributes if name in ("src", "href", "srcset", "action")]
    assert sources and all(source.startswith("data:image/png;base64,") for source in sources)
    embedded = {base64.b64decode(source.split(",", 1)[1]) for source in sources}
    assert embedded == {path.read_bytes() for path in (tmp_path / "figures").glob("*.png")}


def test_text_from_data_stays_text(make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run()
    attacked = dataclasses.replace(
        run,
        title=ATTACK,
        command=ATTACK,
        config=run.config | {"name": ATTACK},
        samples=(SampleRow(ATTACK, ATTACK, ATTACK),),
        skipped={ATTACK: 1},
        data_facts={ATTACK: ATTACK},
        evaluation=(Estimate(ATTACK, 0.5, unit=ATTACK, baselines=run.evaluation[1].baselines),),
        stages=(dataclasses.replace(run.stages[1], name=ATTACK, path=ATTACK),),
    )
    tags = Tags(write_run_page(tmp_path, attacked).read_text(encoding="utf-8"))
    assert "script" not in tags.tags
    assert not [name for name, _ in tags.attributes if name.startswith("on")]
    assert all(value.startswith("data:") for name, value in tags.attributes if name == "src")
    assert tags.text.count(ATTACK) >= 10
    assert "49" not in re.sub(r"\W", " ", tags.text).split()


def test_a_run_without_evaluation_or_samples_has_a_page(make_run: MakeRun, tmp_path: Path) -> None:
    run = dataclasses.replace(
        make_run(),
        evaluation=(),
        note="",
        samples=(),
        distributions=(),
        metrics_paths=(),
        skipped={},
        config={"seed": 0},
    )
    text = Tags(write_run_page(tmp_path, run).read_text(encoding="utf-8")).text
    assert "Nothing was evaluated." in text and "Nothing was left out." in text
    assert "micro-scale" not in text and not (tmp_path / "figures").exists()


def test_lost_metrics_are_an_error_that_names_the_file(make_run: MakeRun, tmp_path: Path) -> None:
    run: RunReport = dataclasses.replace(make_run(), metrics_paths=("gone.jsonl",))
    with pytest.raises(DataError, match=r"gone\.jsonl"):
        write_run_page(tmp_path, run)


def test_each_round_has_a_row(make_run: MakeRun, tmp_path: Path) -> None:
    rows = tuple(RoundRow(n, {"sampling": 60.0, "evaluating": 20.0 * n}, 500, 4000, 75_386) for n in (1, 2))
    page = write_run_page(tmp_path, dataclasses.replace(make_run(rounds=2), rounds=rows))
    text = " ".join(Tags(page.read_text(encoding="utf-8")).text.split())
    assert "tokens drawn sampling evaluating in all" in text
    assert "1 500 4,000 75,386 1 min 00 s 20 s 1 min 20 s 25 %" in text
    assert "2 500 4,000 75,386 1 min 00 s 40 s 1 min 40 s 40 %" in text


def test_responses_that_a_round_drew_are_shown_with_every_score(make_run: MakeRun, tmp_path: Path) -> None:
    drawn = (
        ScoredResponse(1, "Name a use.", "Hold a door.", {"skywork_v2": 3.5, "armorm": 0.125}),
        ScoredResponse(2, "Name a use.", "Throw it.", {"skywork_v2": -1.25}),
    )
    page = write_run_page(tmp_path, dataclasses.replace(make_run(), scored=drawn))
    text = " ".join(Tags(page.read_text(encoding="utf-8")).text.split())
    assert "round prompt response skywork_v2 armorm" in text
    assert "1 Name a use. Hold a door. 3.5 0.125" in text and "2 Name a use. Throw it. -1.25 –" in text


def test_a_profile_is_shown_and_kept(make_run: MakeRun, tmp_path: Path) -> None:
    profile = Profile([3, 4, 5], 0.25, "cpu", {"layers: products": 0.625, "optimizer": 0.375}, memory_bytes=2.0**30)
    run = dataclasses.replace(make_run(), profiles={"train": profile})
    text = " ".join(Tags(write_run_page(tmp_path, run).read_text(encoding="utf-8")).text.split())
    assert "Profile of train steps 3 to 5 of the first process, 250 ms each with the profiler" in text
    assert "layers: products 62.5 % optimizer 37.5 % memory 1.0 GiB" in text
    run.save()
    assert RunReport.load(run.folder).profiles == {"train": profile}
