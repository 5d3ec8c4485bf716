"""Runs the command line in forks of a process that has imported everything, which saves most of a short run's time.

A line of JSON in: ``{"arguments": [...], "folder": ..., "variables": {...}, "out": FILE, "err": FILE}``. Two lines
out: the run's process id, and its exit status when it has ended. Each run leads a session of its own and starts its own
fork server, as ever; that is a fork too.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import signal
import sys
import tempfile
from collections.abc import Sequence
from multiprocessing import util
from pathlib import Path
from typing import Any

HEAVY = (
    "torch.distributed.launcher.api",
    "torch.distributed.run",
    "deepspeed",
    "deepspeed.runtime.zero.muon.original_muon",
    "matplotlib.pyplot",
    "mpo.pipeline.plan",
    "mpo.report.page",
    "mpo.pipeline.runner",
    "mpo.stages.train",
    "mpo.stages.sample",
    "mpo.stages.evaluate",
)
_spawn = util.spawnv_passfds


def preload() -> None:
    """Import what a run and its stages' processes import."""
    from mpo.pipeline.launch import PRELOADED

    os.environ.setdefault("DS_ACCELERATOR", "cpu")
    for name in (*PRELOADED[1:], *HEAVY):  # the first one changes how signals are taken
        importlib.import_module(name)
    _warm()
    util.spawnv_passfds = _fork_server_by_fork
    gc.collect()
    gc.freeze()


def _warm() -> None:
    """Do once what every command does and remembers: find Hydra's plugins and matplotlib's fonts, parse the code."""
    from mpo.cache.code_version import code_version
    from mpo.config.compose import register
    from mpo.report.style import figure

    register()
    for task in Path(__file__).parents[2].glob("mpo/stages/nodes/[a-z]*.py"):
        code_version(task.stem, {}, now=True)
    with tempfile.TemporaryDirectory() as folder, figure(Path(folder) / "figure.png") as drawn:
        drawn.subplots().set_title("title")


def _fork_server_by_fork(path: bytes, arguments: Sequence[str], passed: Sequence[int]) -> int:
    """Instead of a new interpreter, which would import everything: a fork, with signals and files as after exec."""
    if "forkserver" not in arguments[-1]:
        return _spawn(path, arguments, passed)
    pid = os.fork()
    if pid:
        return pid
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)
    kept = {0, 1, 2, *passed}
    for name in os.listdir("/proc/self/fd"):
        if int(name) not in kept:
            with contextlib.suppress(OSError):
                os.close(int(name))
    sys.modules.pop(_first_preloaded(), None)
    try:
        exec(arguments[-1], {"__name__": "__main__"})
    finally:
        os._exit(0)


def _first_preloaded() -> str:
    from mpo.pipeline.launch import PRELOADED

    return PRELOADED[0]


def serve() -> None:
    """Until standard input ends."""
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # libraries greet on standard output
    preload()
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            replies.close()
            _run(json.loads(line))
        replies.write(f"{pid}\n")
        replies.flush()
        _, status = os.waitpid(pid, 0)
        replies.write(f"{os.waitstatus_to_exitcode(status)}\n")
        replies.flush()


def _run(command: dict[str, Any]) -> None:
    """The command in this process, to its end."""
    from mpo.run import main

    os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # whatever the tests' own surroundings made of it
    os.environ.update(command["variables"])
    os.chdir(command["folder"])
    sys.path[0] = command["folder"]  # as of "python -m"
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for number, name in ((1, "out"), (2, "err")):
        descriptor = os.open(Path(command[name]), os.O_CREAT | os.O_WRONLY | os.O_TRUNC)
        os.dup2(descriptor, number)
        os.close(descriptor)
    sys.argv = ["mpo.run", *command["arguments"]]
    main()
    sys.exit(0)


if __name__ == "__main__":
    serve()
