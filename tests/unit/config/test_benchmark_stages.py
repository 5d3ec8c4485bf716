"""Which stages a benchmark adds to a run, and what their fingerprints follow."""

from __future__ import annotations

import dataclasses
import shutil
import sys
from pathlib import Path

import pytest

from mpo.cache.artifacts import Store
from mpo.cache.stage import File, Stage
from mpo.errors import ConfigError, DataError
from mpo.losses import WMPO
from mpo.pipeline.regimes import compose
from mpo.pipeline.rules import check
from tests.unit.config.conftest import Load

OWN = '''
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar
from mpo.errors import DataError
from mpo.evaluate import Benchmark, Decoding, Findings, Question


@dataclass(frozen=True)
class Two(Benchmark):
    """A line of the file a question; the first one has a temperature of its own."""

    path: str
    url: str = ""
    temperatures: list[float] = field(default_factory=lambda: [0.0, 1.0])
    start: bool = True

    files: ClassVar[frozenset[str]] = frozenset({"path"})
    change_nothing: ClassVar[frozenset[str]] = frozenset({"url"})

    @property
    def against_start(self):
        return self.start

    def questions(self):
        if not Path(self.path).exists():
            raise DataError(f"there is no file {self.path}", "measure.path", "give another: measure.path=FILE")
        first, *rest = Path(self.path).read_text().splitlines()
        return [Question("0", (first,), temperature=0.5), *(Question(line, (line,)) for line in rest)]

    def decodings(self):
        return [Decoding(each, seeds=(0, 1 + at)) for at, each in enumerate(self.temperatures)]

    def measure(self, evidence):
        return Findings()
'''


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "own_benchmark.py").write_text(OWN)
    monkeypatch.syspath_prepend(str(tmp_path / "own"))
    monkeypatch.delitem(sys.modules, "own_benchmark", raising=False)
    (tmp_path / "questions.txt").write_text("one\ntwo\nthree\n")
    return tmp_path


def graph(load: Load, folder: Path, *overrides: str) -> dict[str, Stage]:
    node = [f"+evaluate.measures.two={{_target_:own_benchmark.Two,path:{folder / 'questions.txt'}}}"]
    config = load("model=llama3_8b", "evaluate=heldout", "allow_targets=[own_benchmark]", *node, *overrides)
    return {stage.name: stage for stage in compose(config, WMPO()).stages(Store(folder / "cache"))}


def marks(load: Load, folder: Path, *overrides: str) -> dict[str, str]:
    store = Store(folder / "cache")
    return {name: store.fingerprint(stage) for name, stage in graph(load, folder, *overrides).items()}


def test_each_temperature_is_a_stage_and_the_measure_reads_them(load: Load, module: Path) -> None:
    stages = graph(load, module)
    measure = stages["evaluate/two"]
    assert measure.resumable and list(measure.inputs.answers) == ["0.5", "0", "1"]
    own, greedy = (stages[f"evaluate/two/answers@{at}"] for at in ("0.5", "0"))
    assert [one.id for one in own.config.questions] == ["0"] and own.config.sample.temperature == 0.5
    assert [one.id for one in greedy.config.questions] == ["two", "three"] and greedy.config.seeds == [0, 1]
    assert greedy.config.sample.n == 1 and greedy.inputs.policy is stages["train"]
    start = stages["evaluate/two/start_answers@0"]
    assert start.inputs.policy is not stages["train"] and start.config == greedy.config
    assert measure.inputs.files == {"path": File(str(module / "questions.txt"))}
    assert not any("start_answers" in name for name in graph(load, module, "+evaluate.measures.two.start=false"))


def test_the_questions_count_by_their_content_and_a_judges_address_not_at_all(load: Load, module: Path) -> None:
    before = marks(load, module)
    assert marks(load, module, "+evaluate.measures.two.url=http://localhost:1") == before
    shutil.move(module / "questions.txt", module / "moved.txt")
    (module / "questions.txt").symlink_to(module / "moved.txt")
    assert marks(load, module) == before
    (module / "moved.txt").write_text("one\ntwo\nfour\n")
    after = marks(load, module)
    changed = {name for name in after if after[name] != before[name]}
    assert changed == {"evaluate/two", *(f"evaluate/two/{who}@{at}" for who in ("answers", "start_answers")
                                         for at in ("0", "1"))}  # fmt: skip
    other = marks(load, module, "seed=1")
    assert other["evaluate/two/start_answers@0"] == after["evaluate/two/start_answers@0"]


def test_mistakes_name_the_measures_own_key(load: Load, module: Path) -> None:
    with pytest.raises(ConfigError, match=r"^evaluate.measures.two: .* at temperature 0.5 in two ways"):
        graph(load, module, "+evaluate.measures.two.temperatures=[0.0,0.5]")
    (module / "questions.txt").unlink()
    with pytest.raises(DataError, match=r"^evaluate.measures.two.path: .*; give another: evaluate.measures.two.path="):
        graph(load, module)


def test_a_server_of_the_starting_policy_cannot_answer_for_the_trained_one(load: Load, module: Path) -> None:
    served = ("sampler=server", "sampler.urls=[http://localhost:8000/v1]", "evaluate.temperatures=[]")
    node = f"+evaluate.measures.two={{_target_:own_benchmark.Two,path:{module / 'questions.txt'}}}"
    config = load("model=llama3_8b_instruct", "allow_targets=[own_benchmark]", node, *served)
    with pytest.raises(ConfigError, match=r"^evaluate.measures: a benchmark's questions .* which no server has"):
        check(dataclasses.replace(config, dry_run=True))
