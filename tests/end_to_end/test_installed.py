"""The wheel, away from the checkout; and the losses where only torch is installed."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.end_to_end.conftest import ROOT

ABSENT = ("numpy", "transformers", "omegaconf", "hydra", "deepspeed", "datasets", "pyarrow", "wandb", "peft")


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that holds what a wheel of this checkout unpacks to."""
    folder = tmp_path_factory.mktemp("installed")
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    built = subprocess.run(
        [*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder), str(ROOT)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if "No module named 'hatchling'" in built.stderr or "Cannot import 'hatchling" in built.stderr:
        pytest.skip("hatchling is not installed here, and a network is not asked for")
    assert built.returncode == 0, built.stderr
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


def python(site: Path, cwd: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Python with that folder, and not the checkout, among its paths."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    environment |= {"PYTHONPATH": str(site), "HOME": str(cwd), "MPO_CACHE": str(cwd / "cache"), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, *arguments], cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )


@pytest.mark.slow
def test_configuration_travels_in_the_wheel(installed: Path, tmp_path: Path) -> None:
    where = python(
        installed, tmp_path, "-c", "import mpo.config.paths as p; print(p.folder('conf'), p.folder('sweeps'))"
    )
    assert where.stdout.split() == [str(installed / "mpo/_conf"), str(installed / "mpo/_sweeps")], where.stderr
    config = python(installed, tmp_path, "-m", "mpo.run", "--cfg", "job")
    assert "mpo.losses.WMPO" in config.stdout, config.stderr
    plan = python(installed, tmp_path, "-m", "mpo.run", "loss=wmpo", "model=llama3_8b", "dry_run=true")
    assert plan.returncode == 0 and "optimizer steps" in plan.stdout, plan.stderr
    for name in ("conf", "experiments", "sweeps"):
        files = {path.relative_to(ROOT / name) for path in (ROOT / name).rglob("*") if path.is_file()}
        packed = {path.relative_to(installed / f"mpo/_{name}") for path in (installed / f"mpo/_{name}").rglob("*.*")}
        assert files <= packed, name


def test_losses_need_torch_alone(tmp_path: Path) -> None:
    code = f"""
import sys
sys.modules.update(dict.fromkeys({ABSENT!r}))
import torch
from mpo.losses import MPO, WMPO, LossInputs
from mpo.partition import Mean
scores = [9.0, 3.0, 6.5]
inputs = LossInputs(
    policy_logps_BK=torch.tensor([[-30.0, -42.0, -35.0]], requires_grad=True),
    reference_logps_BK=torch.tensor([[-30.0, -42.0, -35.0]]),
    lengths_BK=torch.tensor([[20, 25, 22]]),
    scores_BK=torch.tensor([scores]),
    bins_BK=torch.tensor([Mean()(scores)]),
    mask_BK=torch.ones(1, 3, dtype=torch.bool),
)
loss = MPO(beta=0.1)(inputs).loss_B.sum()
loss.backward()
print(loss.item())
"""
    done = python(ROOT, tmp_path, "-c", code)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) == pytest.approx(0.4054651, rel=1e-6)  # log(3/2): two of three are above the mean
