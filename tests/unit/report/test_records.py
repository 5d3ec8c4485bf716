from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

import pytest

from mpo.errors import DataError
from mpo.evaluate.records import Estimate
from mpo.report.records import RESULT_FILE, RunReport
from tests.unit.report.conftest import MakeRun


def test_a_saved_run_loads_the_same(make_run: MakeRun) -> None:
    run = make_run(rounds=2)
    assert run.save().name == RESULT_FILE
    assert RunReport.load(run.folder) == run


def test_what_could_not_be_measured_stays_so(make_run: MakeRun) -> None:
    run = dataclasses.replace(make_run(), evaluation=(Estimate("win_rate", math.nan),))
    text = run.save().read_text(encoding="utf-8")
    assert "NaN" not in text
    assert math.isnan(RunReport.load(run.folder).evaluation[0].value)


def test_totals_count_built_stages_only(make_run: MakeRun) -> None:
    run = make_run()
    first = dataclasses.replace(run.stages[0], seconds=1000.0, cached=True)
    run = dataclasses.replace(run, stages=(first, *run.stages[1:]))
    assert run.seconds == pytest.approx(131.4)
    assert run.peak_memory_bytes == int(1.6 * 2**30)


def test_a_folder_without_a_run_and_a_foreign_file_are_named(make_run: MakeRun, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="name the folder of a finished run"):
        RunReport.load(tmp_path)
    run = make_run()
    path = run.save()
    record = json.loads(path.read_text(encoding="utf-8"))
    for broken in (record | {"invented": 1}, {k: v for k, v in record.items() if k != "stages"}, [1]):
        path.write_text(json.dumps(broken), encoding="utf-8")
        with pytest.raises(DataError, match=RESULT_FILE):
            RunReport.load(run.folder)
    path.write_text("{", encoding="utf-8")
    with pytest.raises(DataError, match="not the record of a run"):
        RunReport.load(run.folder)
