"""The experiments that ship: what they name exists, and every published number has its row."""

from __future__ import annotations

from pathlib import Path

import pytest

from mpo.config.paths import options
from mpo.errors import ConfigError
from mpo.experiments import spec
from mpo.experiments.cells import by_run, cells_of
from mpo.experiments.composed import composed
from mpo.experiments.options import parse
from mpo.experiments.spec import Kind, load, load_scale, names, published, scales

NOT_ROWS = {"mpo_table8"}
"""Whose published rows are values of the axis."""


def test_every_table_and_figure_is_there() -> None:
    tables = [f"mpo_table{n}" for n in range(1, 10)]
    figures = [f"mpo_fig{n}" for n in range(4, 14)]
    mppo = ["mppo_table2", "mppo_fig3", "mppo_fig4"]
    own = ["testbed_bias", "testbed_drift", "testbed_drift_curves", "testbed_tails"]
    assert sorted(names()) == sorted([*tables, *figures, "mpo_thm1", "mpo_thm2", *mppo, *own, "tuning"])
    assert names()[:3] == tables[:3] and names()[-1] == "tuning"


@pytest.mark.parametrize("name", names())
def test_published_rows_are_rows_of_the_experiment(name: str) -> None:
    experiment = load(name)
    if experiment.published is None or name in NOT_ROWS:
        return
    for block, rows in published()[experiment.published].items():
        if block != "columns":
            assert set(map(str, rows)) <= set(experiment.rows), block


def test_every_loss_is_tuned() -> None:
    used = {
        override.partition("=")[2]
        for one in map(load, names())
        for row in one.rows.values()
        for override in [*row.overrides, *one.overrides]
        if override.startswith("loss=")
    }
    assert used - {"k_bin"} <= set(load("tuning").rows) <= set(options("loss"))


def test_cells_name_each_key_once_and_the_last_override_wins() -> None:
    scale = load_scale("micro")
    for name in names():
        experiment = load(name)
        if experiment.kind is Kind.simulation:
            continue
        for cell in cells_of(experiment, "micro", scale, 2, {"dpo": ["train.lr=1e-3"]}):
            keys = [one.partition("=")[0] for one in cell.overrides]
            assert len(keys) == len(set(keys))
    cells = cells_of(load("mpo_table3"), "micro", scale, 1, {"sppo": ["loss.beta=0.2"]})
    assert all("loss.beta=0.2" in cell.overrides for cell in cells if cell.row.startswith("SPPO"))
    assert len(by_run(cells)) == 2  # three rounds are one run
    axis = cells_of(load("mpo_fig4"), "micro", scale, 1, {})
    assert {"sample.n=2", "sample.n=16"} <= {override for cell in axis for override in cell.overrides}


def test_what_was_chosen_for_the_loss_gives_way_to_the_rows_own() -> None:
    (cell, *_) = cells_of(load("tuning"), "micro", load_scale("micro"), 1, {"dpo": ["train.lr=9"]})
    assert "train.lr=2.5e-4" in cell.overrides
    tuned = cells_of(load("mpo_table4"), "micro", load_scale("micro"), 1, {"mpo": ["train.lr=0.002"]})
    assert ["train.lr=0.002" in cell.overrides for cell in tuned] == [True, False]


def test_tables_share_runs() -> None:
    scale = load_scale("micro")
    first, second = (set(by_run(cells_of(load(name), "micro", scale, 1, {}))) for name in ("mpo_table2", "mpo_table9"))
    assert len(first & second) == 2  # DPO and MPO


@pytest.mark.parametrize("scale", scales())
def test_a_row_of_each_scale_composes(scale: str) -> None:
    cell = cells_of(load("mpo_table2"), scale, load_scale(scale), 1, {})[-1]
    config, choices = composed(cell.overrides)
    assert (choices["loss"], config.regime.name) == ("mpo", "on_policy")


@pytest.mark.slow
@pytest.mark.parametrize("scale", scales())
@pytest.mark.parametrize("name", names())
def test_every_row_composes(name: str, scale: str) -> None:
    if load(name).kind is not Kind.simulation:
        for cell in by_run(cells_of(load(name), scale, load_scale(scale), 1, {})).values():
            composed(cell.overrides)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["mpo_table99"], "there is no experiment 'mpo_table99'; did you mean 'mpo_table9'?"),
        (["mpo-table1", "scal=micro"], "there is no option 'scal'; did you mean 'scale'?"),
        (["mpo-table1", "jobs=0"], "jobs: 0 is not at least 1"),
        (["mpo-table1", "jobs=x"], "Value 'x'"),
        (["scale=micro"], "no experiment is named"),
    ],
)
def test_mistakes_are_one_line(arguments: list[str], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        parse(arguments)
    assert message in str(error.value) and "\n" not in str(error.value)


def test_tables_are_all_but_the_tuning() -> None:
    assert parse(["tables"]).experiments == [name for name in names() if name != "tuning"]
    with pytest.raises(ConfigError, match="there is no scale 'mini'"):
        load_scale("mini")


def test_a_wrong_file_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "experiments/mine" / spec.FILE
    file.parent.mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    for text, message in (
        ("title: A\npaper: B\nrow: {}\n", "Key 'row' not in 'Experiment'"),
        ("title: A\npaper: B\nrows: {X: [loss=dpo]}\nclaims: [X > Y]\n", "claim 'X > Y' is not 'ROW > ROW'"),
        ("title: A\npaper: B\nrows: {X: [loss=dpo]}\ncompare: Z\n", "no row 'Z'"),
        ("title: A\npaper: B\nrows: {X: , Y: }\nclaims: [X > Y @ 2]\n", "claim 'X > Y @ 2' is at no value"),
        ("title: A\npaper: B\nrows: {X: }\nscales: {micro: {rows: {XX: []}}}\n", "no row 'XX'"),
        ("title: A\npaper: B\nrows: {X: {tried: {a: [b=1]}}}\n", "row 'X' has settings of its own"),
        (
            "title: A\npaper: B\nkind: tuning\nrows: {X: {tried: {a: [b=1]}}, Y: [loss=dpo]}\n"
            "scales: {micro: {axis: {label: b, overrides: {'1': [b=1], '2': [b=2]}}}}\n",
            "some rows try more settings than others",
        ),
        ("title: A\npaper: B\nrows: {X: }\nscales: {micro: {only: {b: [X]}}}\n", "'b' is no block"),
        ("title: [A\n", "no YAML"),
        ("- title\n", "no mapping"),
    ):
        file.write_text(text)
        with pytest.raises(ConfigError) as error:
            load("mine")
        assert message in str(error.value) and "mine/experiment.yaml" in str(error.value)
    assert "mine" in names() and "mpo_table1" in names()  # one's own add to those that ship
