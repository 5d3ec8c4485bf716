from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import pytest

from mpo.errors import DataError
from mpo.report.comparison import differing_keys, group_over_seeds, write_comparison_page
from mpo.report.page import write_run_page
from mpo.report.records import RunReport
from tests.unit.report.conftest import MakeRun
from tests.unit.report.test_page import Tags


@pytest.fixture
def runs(make_run: MakeRun) -> list[RunReport]:
    made = [make_run(f"mpo {seed}", "MPO", seed, reward, steps=5) for seed, reward in enumerate((6.0, 6.5, 7.3))]
    return [*made, make_run("dpo", "DPO", 0, 6.2, steps=5)]


def test_only_keys_that_differ_are_columns(runs: list[RunReport]) -> None:
    assert differing_keys([run.config for run in runs]) == ("loss._target_",)
    assert differing_keys([{"a": {"b": 1}, "seed": 0}, {"a": {"b": 1, "c": None}, "seed": 1}]) == ("a.c",)
    assert differing_keys([{"a": 1}]) == ()


def test_groups_have_the_mean_and_standard_error_over_seeds(runs: list[RunReport]) -> None:
    mpo, dpo = group_over_seeds(runs, ("loss._target_",))
    assert (mpo.label, mpo.seeds, dpo.label, dpo.seeds) == ("MPO", (0, 1, 2), "DPO", (0,))
    reward = mpo.evaluation["true reward"]
    assert reward.value == pytest.approx(6.6)
    # Deviations -0.6, -0.1, 0.7: variance 0.86 / 2, over 3 runs.
    assert reward.standard_error == pytest.approx(math.sqrt(0.43 / 3))
    assert reward.n == 3
    assert dpo.evaluation["true reward"].standard_error == 0.05


def test_a_label_has_no_more_keys_than_tell_groups_apart(runs: list[RunReport]) -> None:
    one, other = (
        dataclasses.replace(run, config={**run.config, "partition": {"_target_": f"mpo.partition.{side}"}})
        for run, side in ((runs[0], "Mean"), (runs[3], "BestVsWorst"))
    )
    keys = differing_keys([one.config, other.config])
    assert keys == ("loss._target_", "partition._target_")
    assert [group.label for group in group_over_seeds([one, other], keys)] == ["MPO", "DPO"]


def test_baselines_that_all_seeds_share_stay(runs: list[RunReport]) -> None:
    mpo, _ = group_over_seeds(runs, ("loss._target_",))
    assert mpo.evaluation["true reward"].baselines == runs[0].measures["true reward"].baselines != ()


def test_a_run_that_lacks_a_measure_is_not_counted_in_its_mean(runs: list[RunReport]) -> None:
    fewer = dataclasses.replace(runs[0], evaluation=(runs[0].measures["win rate"],))
    (group,) = group_over_seeds([fewer, *runs[1:3]], ())
    assert group.label == "all runs"
    assert group.evaluation["true reward"].value == pytest.approx(6.9)
    assert group.evaluation["true reward"].n == 2
    assert group.evaluation["win rate"].n == 3


def test_page_groups_links_and_escapes(runs: list[RunReport], tmp_path: Path) -> None:
    write_run_page(runs[0].folder, runs[0])
    runs[1] = dataclasses.replace(runs[1], name="<script>alert(1)</script>")
    html = write_comparison_page(tmp_path / "sweep", runs).read_text(encoding="utf-8")
    tags = Tags(html)
    text = " ".join(tags.text.split())
    assert "MPO 3 6.60 ± 0.38" in text and "DPO 1 6.200 ± 0.050" in text
    assert "micro-scale testbed" in text and "2 min 11 s" in text and "1.6 GiB" in text
    assert "script" not in tags.tags and "://" not in html
    assert [value for name, value in tags.attributes if name == "href"] == ["../mpo%200/report.html"]
    names = {path.stem for path in (tmp_path / "sweep" / "figures").glob("*.png")}
    assert {"compare_loss", "compare_accuracy"} <= names
    assert "compare_lr" not in names


def test_nothing_to_compare_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no runs to compare"):
        write_comparison_page(tmp_path, [])
