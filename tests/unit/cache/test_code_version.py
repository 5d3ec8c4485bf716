"""An edit of code builds again what that code computes, and nothing else."""

from __future__ import annotations

import importlib.metadata
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import mpo
from mpo.cache import code_version, package_versions
from mpo.cache.artifacts import Store
from mpo.cache.stage import Stage

Edit = Callable[[str, str, str], None]


@pytest.fixture(autouse=True)
def nothing_remembered() -> Iterator[None]:
    """As in a new process."""
    yield
    forget()


def forget() -> None:
    for remembered in (
        code_version._first_version,
        code_version._first,
        code_version._root,
        package_versions.package_version,
    ):
        remembered.cache_clear()


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the package."""
    folder = tmp_path_factory.mktemp("checkout")
    shutil.copytree(Path(mpo.__file__).parent, folder / "mpo", ignore=shutil.ignore_patterns("__pycache__"))
    return folder


@pytest.fixture
def edit(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Edit]:
    """Changes files of the copy, which counts in place of the package, until the test is over."""
    real = code_version._root
    edited: dict[Path, str] = {}

    def root(top: str) -> Path | None:
        return checkout if top == "mpo" else real(top)

    root.cache_clear = real.cache_clear  # type: ignore[attr-defined]
    monkeypatch.setattr(code_version, "_root", root)

    def change(name: str, old: str, new: str) -> None:
        path = checkout / name
        text = path.read_text()
        assert old in text, name
        edited.setdefault(path, text)
        path.write_text(text.replace(old, new))
        forget()

    yield change
    for path, text in edited.items():
        path.write_text(text)


LOSS = {"_target_": "mpo.losses.WMPO", "beta": 0.1}
DPO = {"_target_": "mpo.losses.DPO", "beta": 0.1}


def fingerprints(cache: Path, loss: dict[str, object] = LOSS, **train: object) -> dict[str, str]:
    """Of the chain that the testbed's off-policy regime has, in short."""
    store = Store(cache)
    sft = Stage("sft", "train", {"loss": {"_target_": "mpo.losses.SFT"}, "train": {"lora": None}})
    scorer = {"_target_": "mpo.score.function.FunctionScorer", "function": "mpo.testbed.reward.true_reward"}
    sampler = {"_target_": "mpo.sample.HFSampler"}
    sample = Stage("sample", "sample", {"sampler": sampler, "sample": {"n": 4}}, inputs={"policy": sft})
    score = Stage("score", "score", {"scorer": scorer}, inputs={"sets": sample})
    partition = {"_target_": "mpo.partition.Mean"}
    parted = Stage("partition", "partition", {"partition": partition}, inputs={"sets": score})
    trained = Stage("train", "train", {"loss": loss, "train": train}, inputs={"partition": parted, "policy": sft})
    evaluate = Stage("evaluate", "evaluate", {"loss": loss}, inputs={"train": trained})
    return {stage.name: store.fingerprint(stage) for stage in (sft, sample, score, parted, trained, evaluate)}


def changed(before: dict[str, str], after: dict[str, str]) -> list[str]:
    return [name for name in before if before[name] != after[name]]


@pytest.mark.parametrize(
    ("name", "old", "new", "again"),
    [
        ("mpo/report/bars.py", "return ", "return  0 or ", []),
        ("mpo/track/console.py", "return ", "return  0 or ", []),
        ("mpo/losses/set_level.py", "return ", "return 0 + ", ["train", "evaluate"]),
        ("mpo/losses/pairwise.py", "return ", "return 0 + ", []),
        ("mpo/partition/two_way.py", "return ", "return 0 or ", ["partition", "train", "evaluate"]),
        ("mpo/testbed/reward.py", "return ", "return 0 + ", ["score", "partition", "train", "evaluate"]),
        ("mpo/sample/hf.py", "return ", "return 0 or ", ["sample", "score", "partition", "train", "evaluate"]),
        ("mpo/train/loop.py", "return", "return ", []),
        ("mpo/train/loop.py", "return ", "return 0 or ",
         ["sft", "sample", "score", "partition", "train", "evaluate"]),
        ("mpo/losses/set_level.py", '"""Set-level', '"""Our set-level', []),
        ("mpo/losses/set_level.py", "\n\n\n", "\n\n# A comment.\n\n\n", []),
        ("mpo/policy/adapters.py", "return ", "return 0 or ", []),
    ],
)  # fmt: skip
def test_an_edit_of_the_package(tmp_path: Path, edit: Edit, name: str, old: str, new: str, again: list[str]) -> None:
    before = fingerprints(tmp_path)
    edit(name, old, new)
    assert changed(before, fingerprints(tmp_path)) == again


def test_adapters_count_where_they_are_trained(tmp_path: Path, edit: Edit) -> None:
    lora = {"rank": 4}
    before = fingerprints(tmp_path, lora=lora)
    edit("mpo/policy/adapters.py", "return ", "return 0 or ")
    assert changed(before, fingerprints(tmp_path, lora=lora)) == ["train", "evaluate"]


@pytest.mark.parametrize(
    ("library", "lora", "again"),
    [
        ("peft", None, []),
        ("peft", {"rank": 4}, ["train", "evaluate"]),
        ("deepspeed", None, ["sft", "sample", "score", "partition", "train", "evaluate"]),
        ("datasets", {"rank": 4}, ["sft", "sample", "score", "partition", "train", "evaluate"]),
    ],
)
def test_another_version_of_a_library(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, library: str, lora: object, again: list[str]
) -> None:
    before = fingerprints(tmp_path, lora=lora)
    version = importlib.metadata.version
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "0" if name == library else version(name))
    forget()
    assert changed(before, fingerprints(tmp_path, lora=lora)) == again


def test_the_packages_own_version_does_not_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = fingerprints(tmp_path)
    monkeypatch.setattr(mpo, "__version__", "99")
    forget()
    assert fingerprints(tmp_path) == before


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of the user's with a loss that imports a helper, a package and mpo."""
    folder = tmp_path / "own"
    (folder / "tools").mkdir(parents=True)
    (folder / "ourloss.py").write_text(
        "import numpy\nfrom mpo.losses.base import Loss\nimport helper_of_ours\n\n"
        "class Ours(Loss):\n    def weight(self):\n        from tools.scale import twice\n        return twice(1)\n"
    )
    (folder / "helper_of_ours.py").write_text("A = 1\n")
    (folder / "tools" / "__init__.py").write_text("print('acts')\nfrom tools import setup\n")
    (folder / "tools" / "setup.py").write_text("B = 1\n")
    (folder / "tools" / "scale.py").write_text("def twice(x):\n    return 2 * x\n")
    (folder / "unrelated.py").write_text("C = 1\n")
    monkeypatch.syspath_prepend(str(folder))
    return folder


OURS: dict[str, object] = {"_target_": "ourloss.Ours"}


@pytest.mark.parametrize(
    ("name", "text", "again"),
    [
        ("ourloss.py", "return twice(1)", True),
        ("helper_of_ours.py", "A = 1", True),
        ("tools/scale.py", "2 * x", True),
        ("tools/__init__.py", "print('acts')", True),
        ("tools/setup.py", "B = 1", True),
        ("unrelated.py", "C = 1", False),
    ],
)
def test_an_edit_of_ones_own_loss(tmp_path: Path, own: Path, name: str, text: str, again: bool) -> None:
    before = fingerprints(tmp_path, OURS)
    path = own / name
    source = path.read_text()
    path.write_text(source.replace(text, f"{text}  # a comment"))
    forget()
    assert fingerprints(tmp_path, OURS) == before
    path.write_text(source.replace(text, text.replace("1", "3").replace("2", "3").replace("acts", "does")))
    forget()
    assert changed(before, fingerprints(tmp_path, OURS)) == (["train", "evaluate"] if again else [])


def test_what_ones_own_loss_imports_of_mpo_counts(tmp_path: Path, own: Path, edit: Edit) -> None:
    (own / "ourloss.py").write_text("from mpo.losses import DPO\n\nclass Ours(DPO):\n    pass\n")
    before = fingerprints(tmp_path, OURS)
    edit("mpo/losses/pairwise.py", "return ", "return 0 + ")
    assert changed(before, fingerprints(tmp_path, OURS)) == ["train", "evaluate"]


def test_code_is_read_and_never_run(tmp_path: Path, own: Path) -> None:
    (own / "ourloss.py").write_text("raise SystemExit('imported')\n")
    fingerprints(tmp_path, OURS)
    (own / "ourloss.py").write_text("this is not Python\n")
    forget()
    fingerprints(tmp_path, OURS)
    assert "ourloss" not in sys.modules


def test_a_running_command_keeps_what_it_has_read_and_notices_an_edit(tmp_path: Path, own: Path) -> None:
    store, stage = Store(tmp_path), Stage("train", "train", {"loss": OURS})
    before = store.fingerprint(stage)
    assert store.changed_code(stage) == []
    (own / "helper_of_ours.py").write_text("A = 2\n")
    assert Store(tmp_path).fingerprint(stage) == before
    assert store.changed_code(stage) == ["helper_of_ours"]


def test_modules_that_pass_a_name_to_each_other_are_all_followed(tmp_path: Path, own: Path) -> None:
    (own / "ring").mkdir()
    (own / "ring" / "__init__.py").write_text("from ring.one import X\n")
    (own / "ring" / "one.py").write_text("try:\n    from ring.two import X\nexcept ImportError:\n    X = 1\n")
    (own / "ring" / "two.py").write_text("from ring.one import X\nY = 1\n")
    (own / "ourloss.py").write_text("from mpo.losses import DPO\nfrom ring import X\n\nclass Ours(DPO):\n    pass\n")
    before = fingerprints(tmp_path, OURS)
    (own / "ring" / "two.py").write_text("from ring.one import X\nY = 2\n")
    forget()
    assert changed(before, fingerprints(tmp_path, OURS)) == ["train", "evaluate"]
