"""What processes of a stage are started with."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
from multiprocessing import forkserver
from pathlib import Path

import pytest

from mpo.errors import ConfigError, ProcessError, StageFailed
from mpo.pipeline.failure_reports import Report, ReportBox, send
from mpo.pipeline.launch import OPENMP, _why, prepare_fork_server
from mpo.pipeline.stage_process import ALLOCATORS, ERROR_FILE, use_expandable_segments
from mpo.stages.context import StageContext


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ({}, OPENMP),
        ({"GOMP_SPINCOUNT": "7"}, OPENMP | {"GOMP_SPINCOUNT": "7"}),
        ({"OMP_WAIT_POLICY": "ACTIVE"}, {"OMP_WAIT_POLICY": "ACTIVE"}),
    ],
)
def test_a_users_policy_for_waiting_threads_is_kept(
    given: dict[str, str], found: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    environment = {name: value for name, value in os.environ.items() if name not in OPENMP} | given
    monkeypatch.setattr(os, "environ", environment)
    monkeypatch.setattr(forkserver, "ensure_running", lambda: None)
    monkeypatch.setattr(multiprocessing, "set_forkserver_preload", lambda names: None)
    prepare_fork_server()
    assert {name: environment[name] for name in OPENMP if name in environment} == found


@pytest.mark.parametrize(
    "given",
    [{}, {"PYTORCH_ALLOC_CONF": "max_split_size_mb:64"}, {"PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:False"}],
)
def test_a_users_allocator_is_kept(given: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    environment = {name: value for name, value in os.environ.items() if name not in ALLOCATORS} | given
    monkeypatch.setattr(os, "environ", environment)
    use_expandable_segments()
    found = {name: environment[name] for name in ALLOCATORS if name in environment}
    assert found == (given or {"PYTORCH_ALLOC_CONF": "expandable_segments:True"})


def test_the_allocator_is_set_up_after_torch_was_imported() -> None:
    """As in a process that the fork server has made."""
    code = (
        "import torch\nfrom mpo.pipeline.stage_process import use_expandable_segments\nuse_expandable_segments()\n"
        "print(torch._C._accelerator_getAllocatorSettings())"
    )
    environment = {name: value for name, value in os.environ.items() if name not in ALLOCATORS}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert done.stdout.strip() == "expandable_segments:True"


@pytest.mark.parametrize(
    ("codes", "mistake", "raised"),
    [
        ({0: -signal.SIGKILL, 1: 1}, False, ProcessError),  # whose end is what the other stumbled over
        ({1: 1, 0: -signal.SIGTERM}, False, StageFailed),  # as the agent ends the others
        ({0: -signal.SIGKILL, 1: 2}, True, ConfigError),
    ],
)
def test_a_killed_process_comes_before_what_it_did_to_others(
    codes: dict[int, int], mistake: bool, raised: type[Exception], tmp_path: Path
) -> None:
    report = Report.of_mistake(ConfigError("wrong")) if mistake else Report.of_bug("Connection closed by peer\n")
    with ReportBox() as box:
        send(report, box.address, tmp_path / ERROR_FILE)
        error = _why(StageContext("train", {}, {}, {}, tmp_path), box, codes)
    assert type(error) is raised
    assert ("killed by signal 9 (SIGKILL), perhaps out of memory" in str(error)) is (raised is ProcessError)


STOPPED_AT_ONCE = """
import multiprocessing, os, signal, sys
from multiprocessing import forkserver, resource_tracker
from mpo.pipeline.stage_process import take_signals

STOPPING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)

def child(path):
    os.kill(os.getpid(), signal.SIGTERM)
    open(path + "still there", "w").close()
    take_signals()
    open(path + "too late", "w").close()

if __name__ == "__main__":
    multiprocessing.set_forkserver_preload(["mpo.pipeline.forkserver_signals"])
    resource_tracker.ensure_running()  # it sets the signal mask
    signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)
    forkserver.ensure_running()
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPPING)
    process = multiprocessing.get_context("forkserver").Process(target=child, args=(sys.argv[1],))
    process.start()
    process.join()
    sys.exit(-process.exitcode)
"""


def test_a_request_before_a_stages_first_line_is_taken_there(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(STOPPED_AT_ONCE)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    done = subprocess.run([sys.executable, script, f"{tmp_path}/"], env=environment, check=False)
    assert done.returncode == signal.SIGTERM
    assert (tmp_path / "still there").exists() and not (tmp_path / "too late").exists()
