"""What vLLM starts beside itself ends with the process that holds the engine."""

from __future__ import annotations

import inspect
import subprocess
import sys
import time

import psutil
import pytest

PARENT = """
import subprocess, sys
from mpo.engine import LOOK_AT_CLASS
child = subprocess.Popen([sys.executable, "-c", LOOK_AT_CLASS], stdin=subprocess.PIPE)  # it waits for its input
print(child.pid, flush=True)
child.wait()
"""


def test_a_look_at_a_models_class_ends_with_who_asked_for_it() -> None:
    pytest.importorskip("vllm", reason="vLLM is not installed (make install-vllm)")
    from vllm.model_executor.models import registry

    assert "_SUBPROCESS_COMMAND, input=" in inspect.getsource(registry._run_in_subprocess)  # what mpo.engine replaces
    with subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = psutil.Process(int(parent.stdout.readline()))
        while child.cpu_times().user < 1:  # it has begun to import
            time.sleep(0.05)
        parent.kill()
    deadline = time.monotonic() + 2
    while child.is_running() and child.status() != psutil.STATUS_ZOMBIE and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not child.is_running() or child.status() == psutil.STATUS_ZOMBIE
