"""A run that is asked to stop, at its very end too."""

from __future__ import annotations

import subprocess
import sys

LAST_MOMENT = """
import os, signal
from mpo.pipeline.stopping import take_signals

take_signals()

class Last:
    def __del__(self, kill=os.kill, pid=os.getpid(), number=signal.SIG{name}):
        kill(pid, number)

last = Last()  # goes after Python has given signals their default action back
"""

LOST = """
import os, signal, time
from torch.distributed.elastic.multiprocessing.api import SignalException, _terminate_process_handler
from mpo.pipeline.stopping import take_signals

class Callback:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGINT)

take_signals()
signal.signal(signal.SIGINT, _terminate_process_handler)
try:
    Callback()
    time.sleep(60)
except SignalException:
    print("stopped")
"""


def test_a_request_that_torchs_agent_loses_in_a_callback_is_made_again() -> None:
    done = subprocess.run([sys.executable, "-c", LOST], capture_output=True, check=False, timeout=50)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"stopped\n", b"")


def test_a_request_while_a_finished_process_ends_makes_no_failure() -> None:
    for name in ("TERM", "INT", "HUP"):
        done = subprocess.run([sys.executable, "-c", LAST_MOMENT.format(name=name)], capture_output=True, check=False)
        assert (done.returncode, done.stderr) == (0, b""), name


def test_a_request_before_stops_it() -> None:
    script = LAST_MOMENT.format(name="TERM") + "del last\n"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=False)
    assert done.returncode == 143 and b"stopped" in done.stderr
