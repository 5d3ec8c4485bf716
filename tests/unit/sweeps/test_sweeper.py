"""The loop of a sweep: what it launches, skips, counts as failed and refuses."""

from __future__ import annotations

import json
from contextlib import ExitStack
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from mpo.cache.locks import locked
from mpo.config.schema import SweepMethod
from mpo.errors import ConfigError
from mpo.pipeline.multirun import AlreadyReported
from mpo.sweeps.folder import LOCKS
from tests.unit.sweeps.conftest import MakeSweep, invented

Captured = pytest.CaptureFixture[str]
BETAS = "loss.beta=0.1,0.3,1"
DRAWN = {"method": SweepMethod.random, "trials": 6}


def reward(values: dict[str, str]) -> float | None:
    return 5 - abs(float(values["loss.beta"]) - 0.3) + float(values.get("seed", 0)) / 100


def fails_at_three_tenths(values: dict[str, str]) -> float | None:
    return None if values["loss.beta"] == "0.3" else reward(values)


def test_every_seed_of_every_setting_has_a_folder(make_sweep: MakeSweep, tmp_path: Path, capsys: Captured) -> None:
    sweep, launcher = make_sweep(reward, BETAS, "seed=0,1")
    sweep.run()
    assert [(one["loss.beta"], one["seed"], one["hydra.sweep.subdir"]) for one in launcher.launched] == [
        *(("0.1", "0", "0"), ("0.1", "1", "1"), ("0.3", "0", "2"), ("0.3", "1", "3"), ("1", "0", "4"), ("1", "1", "5"))
    ]
    record = json.loads((tmp_path / "sweep/sweep.json").read_text())
    assert record["settings"] == [["0.1"], ["0.3"], ["1"]] and record["axes"] == ["loss.beta"]
    told = capsys.readouterr().err
    assert "3 settings with 2 seeds each, grid" in told and "the best is loss.beta=0.3" in told


def test_a_failed_member_ends_no_sweep_and_is_run_again_when_it_goes_on(
    make_sweep: MakeSweep, capsys: Captured
) -> None:
    sweep, launcher = make_sweep(fails_at_three_tenths, BETAS)
    sweep.run()
    assert len(launcher.launched) == 3
    told = capsys.readouterr().err
    assert "no value for loss.beta=0.3: 1 of 1 members have none" in told and "of 1 others" in told
    again, launcher = make_sweep(reward, BETAS)
    again.run()
    assert [one["loss.beta"] for one in launcher.launched] == ["0.3"]


def test_a_sweep_in_which_all_fail_ends_with_their_status(make_sweep: MakeSweep) -> None:
    sweep, _ = make_sweep(lambda values: None, BETAS)
    with pytest.raises(AlreadyReported) as ended:
        sweep.run()
    assert ended.value.code == 2


def test_what_is_not_finite_counts_as_failed(make_sweep: MakeSweep, capsys: Captured) -> None:
    sweep, _ = make_sweep(lambda values: float("nan") if values["loss.beta"] == "0.3" else reward(values), BETAS)
    sweep.run()
    assert "no value for loss.beta=0.3" in capsys.readouterr().err


def test_killed_in_the_middle_it_goes_on_with_the_rest(make_sweep: MakeSweep) -> None:
    def killed(values: dict[str, str]) -> float | None:
        if values["loss.beta"] == "0.3":
            raise KeyboardInterrupt
        return reward(values)

    sweep, _ = make_sweep(killed, BETAS, **DRAWN)
    with pytest.raises(KeyboardInterrupt):
        sweep.run()
    done = len(list(sweep.root.glob("*/result.json")))
    again, launcher = make_sweep(reward, BETAS, **DRAWN)
    again.run()
    whole, other = make_sweep(reward, BETAS, **DRAWN, folder="whole")
    whole.run()
    assert 0 < len(launcher.launched) == 6 - done
    assert launcher.launched == other.launched[done:]


def test_two_processes_share_a_folder(make_sweep: MakeSweep, capsys: Captured) -> None:
    """Here one holds the lock of the setting that it works on while the other looks for more; then it is killed."""
    first, _ = make_sweep(reward, BETAS)
    second, other = make_sweep(reward, BETAS)
    with ExitStack() as held:
        assert first.take(held) == [0]
        second.run()
        assert [one["loss.beta"] for one in other.launched] == ["0.3", "1"]
    assert "loss.beta=0.1 is worked on by another process" in capsys.readouterr().err
    third, launcher = make_sweep(reward, BETAS)
    third.run()
    assert [one["loss.beta"] for one in launcher.launched] == ["0.1"]


def test_a_lock_that_a_dead_process_left_stops_nobody(make_sweep: MakeSweep, tmp_path: Path) -> None:
    (tmp_path / "sweep" / LOCKS).mkdir(parents=True)
    with locked(tmp_path / "sweep" / LOCKS / "0"):
        pass
    sweep, launcher = make_sweep(reward, BETAS)
    sweep.run()
    assert len(launcher.launched) == 3


def test_another_sweep_in_the_folder_is_refused(make_sweep: MakeSweep) -> None:
    make_sweep(reward, BETAS)[0].run()
    for arguments in ([BETAS, "loss=mpo"], ["loss.beta=0.1,0.3"], [BETAS, "seed=0,1"]):
        with pytest.raises(ConfigError, match="hydra.sweep.dir: .* holds another sweep"):
            make_sweep(reward, *arguments)[0].run()
    sweep, launcher = make_sweep(reward, BETAS, "launcher.threads=1", "logger=none")  # where it runs may differ
    sweep.run()
    assert launcher.launched == []


def test_other_runs_in_the_folder_are_refused(make_sweep: MakeSweep, tmp_path: Path) -> None:
    invented(tmp_path / "sweep" / "0", 1.0)
    with pytest.raises(ConfigError, match="holds other runs"):
        make_sweep(reward, BETAS)[0].run()


def test_a_metric_that_there_is_not_ends_it_with_those_there_are(make_sweep: MakeSweep) -> None:
    sweep, launcher = make_sweep(reward, BETAS, metric="heldout/glory")
    with pytest.raises(
        ConfigError, match="sweep.metric: .*'heldout/glory'; choose one of heldout/reward@1, heldout/length"
    ):
        sweep.run()
    assert len(launcher.launched) == 1


def test_without_a_metric_there_is_nothing_to_look_for(make_sweep: MakeSweep) -> None:
    with pytest.raises(ConfigError, match="sweep.metric: has no value"):
        make_sweep(reward, BETAS, metric=None)


def test_a_dry_run_plans_every_member_and_leaves_no_result(make_sweep: MakeSweep, tmp_path: Path) -> None:
    sweep, launcher = make_sweep(lambda values: None, BETAS, "seed=0,1")
    with pytest.raises(AlreadyReported):
        sweep.plan_only()
    assert len(launcher.launched) == 6 and not list(tmp_path.glob("sweep/*/result.json"))


def test_later_members_get_the_medians_of_those_that_are_done(make_sweep: MakeSweep, tmp_path: Path) -> None:
    def loses(values: dict[str, str]) -> float:
        return 5 - float(values["loss.beta"])

    betas = "loss.beta=0.1,0.2,0.3,0.4,0.5"
    sweep, launcher = make_sweep(loses, betas, stop_behind=True, keep_best="heldout/accuracy")
    launcher.evaluations = lambda value: [(10, value / 10), (20, value / 5)]
    sweep.run()
    given = [one.get("train.stop_behind") for one in launcher.launched]
    assert given[:4] == [None] * 4
    (limits,) = OverridesParser.create().parse_overrides([f"train.stop_behind={given[4]}"])
    assert limits.value() == pytest.approx([0.475, 0.7125])
    record = json.loads((tmp_path / "sweep/sweep.json").read_text())
    assert record["stop_behind"][:4] == [[]] * 4 and len(record["stop_behind"][4]) == 2
    (tmp_path / "sweep/4/result.json").unlink()
    again, launcher = make_sweep(loses, betas, stop_behind=True, keep_best="heldout/accuracy")
    again.run()
    assert [one["train.stop_behind"] for one in launcher.launched] == [given[4]], "a member that is run again"
    with pytest.raises(ConfigError, match="train.keep_best=heldout/accuracy"):
        make_sweep(loses, betas, folder="other", stop_behind=True)
