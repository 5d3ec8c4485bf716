from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mpo.experiments.worker import LOG

COMMAND = """
import sys
from pathlib import Path
from mpo.experiments.cells import Cell
from mpo.experiments.execute import run_here
if __name__ == "__main__":
    here = Path(sys.argv[1])
    given = (f"cache_dir={here}/cache", f"results={here}/results", "launcher.threads=1", "logger=none")
    given += ("model.scratch.sft.max_steps=1000000",)
    cells = [Cell("", "", "", unit, (*given, f"seed={unit}")) for unit in range(3)]
    list(run_here(cells, here / "runs", 2, ["0"]))  # two that share what is no card here
"""


def alive(group: int) -> list[int]:
    """Processes of the group that have not ended."""
    found = []
    for file in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, _, of = file.read_text().rpartition(")")[2].split()[:3]
            if int(of) == group and state != "Z":
                found.append(int(file.parent.name))
    return found


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_command_leaves_no_process(tmp_path: Path, number: signal.Signals) -> None:
    script = tmp_path / "command.py"
    script.write_text(COMMAND)
    process = subprocess.Popen([sys.executable, str(script), str(tmp_path)], start_new_session=True,
                               stderr=subprocess.PIPE, text=True)  # fmt: skip
    try:
        deadline = time.monotonic() + 60
        while len(list(tmp_path.glob(f"runs/*/{LOG}"))) < 2 and time.monotonic() < deadline:
            time.sleep(0.1)
        assert len(alive(process.pid)) > 2
        process.send_signal(number)
        error = process.communicate(timeout=10)[1]
        assert process.returncode != 0 and ("KeyboardInterrupt" in error) == (number is signal.SIGINT)
        deadline = time.monotonic() + 10
        while alive(process.pid) and time.monotonic() < deadline:
            time.sleep(0.1)
        assert not alive(process.pid)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
