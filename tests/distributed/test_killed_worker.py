"""A worker that is killed after it has done its work, while another one still works."""

from __future__ import annotations

import os
import signal
import threading
import time
from multiprocessing import forkserver
from pathlib import Path

from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, Std, start_processes
from torch.distributed.elastic.multiprocessing.api import RunProcsResult

from mpo.pipeline.launch import killed_workers_noticed

WAIT_S = 60


def write_pid_and_wait(folder: str) -> None:
    """A worker: the first one returns at once, the second one when it is told to."""
    rank = int(os.environ["LOCAL_RANK"])
    (Path(folder) / f"pid{rank}").write_text(str(os.getpid()))
    while rank == 1 and not (Path(folder) / "go").exists():
        time.sleep(0.02)


def ignore_and_return(folder: str) -> None:
    """A worker whose last step has taken the request to stop."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    (Path(folder) / "ignoring").touch()
    while not (Path(folder) / "go").exists():
        time.sleep(0.02)


def test_the_agent_stops_although_a_worker_has_missed_the_request_and_waits_for_its_word(tmp_path: Path) -> None:
    logs = tmp_path / "logs"
    logs.mkdir()
    environment = {"LOCAL_RANK": "0", "RANK": "0", "TORCHELASTIC_ERROR_FILE": str(tmp_path / "error")}
    specs = DefaultLogsSpecs(log_dir=str(logs), redirects=Std.ALL)
    with killed_workers_noticed():
        group = start_processes(
            "group", ignore_and_return, {0: (str(tmp_path),)}, {0: environment}, specs, start_method="forkserver"
        )
    deadline = time.monotonic() + WAIT_S
    while not (tmp_path / "ignoring").exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    closing = threading.Thread(target=lambda: group.close(signal.SIGTERM, timeout=WAIT_S), daemon=True)
    closing.start()
    time.sleep(0.5)
    began = time.monotonic()
    (tmp_path / "go").touch()
    closing.join(WAIT_S / 2)
    assert not closing.is_alive() and time.monotonic() - began < WAIT_S / 4


def test_the_agent_ends_although_a_worker_was_killed_before_the_fork_server_reported_it(tmp_path: Path) -> None:
    logs = tmp_path / "logs"
    logs.mkdir()
    environments = {
        rank: {"LOCAL_RANK": str(rank), "RANK": str(rank), "TORCHELASTIC_ERROR_FILE": str(tmp_path / f"error{rank}")}
        for rank in range(2)
    }
    arguments = {rank: (str(tmp_path),) for rank in range(2)}
    specs = DefaultLogsSpecs(log_dir=str(logs), redirects=Std.ALL)
    forkserver.ensure_running()
    server = forkserver._forkserver._forkserver_pid  # type: ignore[attr-defined]
    with killed_workers_noticed():
        group = start_processes("group", write_pid_and_wait, arguments, environments, specs, start_method="forkserver")
    deadline = time.monotonic() + WAIT_S
    while not group._ret_vals[0]._reader.poll():  # type: ignore[attr-defined]  # the first one has returned
        assert time.monotonic() < deadline and group.wait(0) is None
        time.sleep(0.05)
        if group._return_values:  # type: ignore[attr-defined]
            break
    ended: list[RunProcsResult | None] = []
    waiting = threading.Thread(target=lambda: ended.append(group.wait()), daemon=True)
    os.kill(server, signal.SIGSTOP)
    try:
        os.kill(int((tmp_path / "pid0").read_text()), signal.SIGKILL)
        (tmp_path / "go").touch()
        waiting.start()
        time.sleep(2)  # the second one has returned too; the agent believes both alive
    finally:
        os.kill(server, signal.SIGCONT)
    waiting.join(WAIT_S)
    assert ended and ended[0] is not None
    assert {rank: one.exitcode for rank, one in ended[0].failures.items()} == {0: -signal.SIGKILL}
