"""What libraries say while the fork server imports them stays off the terminal."""

from __future__ import annotations

import subprocess
import sys

from mpo.pipeline.launch import PRELOADED


def test_preloading_writes_nothing() -> None:
    first, last = PRELOADED.index("mpo.pipeline.forkserver_logging"), PRELOADED.index("peft")
    assert first < last
    imports = "; ".join(f"import {name}" for name in PRELOADED[first : last + 1])
    done = subprocess.run([sys.executable, "-c", imports], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
