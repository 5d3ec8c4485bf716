"""Command lines composed, checked and planned in this process, and what each ended with."""

from __future__ import annotations

import contextlib
import functools
import gc
import io
import json
import logging
import os
import pickle
import re
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

from hydra import compose, initialize_config_dir
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig

from mpo.config.compose import CONFIG_NAME, register, typed
from mpo.config.messages import explain, explain_composition
from mpo.config.paths import groups
from mpo.config.schema import RunConfig
from mpo.pipeline import command_line
from mpo.pipeline.runner import run
from mpo.plain import to_plain
from mpo.planning.machine import Machine
from mpo.stages.scratch import check_architecture

SECONDS, CHARACTERS = 10, 400
"""Most time of a command line, of a multirun of each of its members; most characters of a line that it prints."""
GROUPS = [*groups(), "train/lora"]
SHAPE = {
    **{"model_type": "llama", "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "vocab_size": 100},
    **{"num_attention_heads": 4, "max_position_embeddings": 8192},
}


@dataclass(frozen=True)
class Outcome:
    """What a command line ended with; ``fault`` says what is wrong with that, if anything."""

    code: int
    out: str
    err: str
    seconds: float
    crash: str

    @property
    def fault(self) -> str:
        if self.crash:
            return self.crash
        if self.code not in (0, 2):
            return f"exit status {self.code}"
        if self.seconds > SECONDS:
            return f"took {self.seconds:.0f} s"
        lines = self.err.splitlines()
        members = re.search(r"Launching (\d+) jobs", self.out)  # each of a multirun has a line of its own
        most = int(members.group(1)) if members else 1
        if self.code == 2 and not (0 < len(lines) <= most and all(line.startswith("mpo: error: ") for line in lines)):
            return f"no single line: {self.err[:500]!r}"
        longest = max((*self.out.splitlines(), *lines), key=len, default="")
        return f"a line of {len(longest)} characters: {longest[:200]!r}" if len(longest) > CHARACTERS else ""


class Slow(BaseException):
    """The command line took too long."""


@contextlib.contextmanager
def surroundings(folder: Path) -> Iterator[None]:
    """A working directory, home and cache below ``folder``, a machine of known speed, and Hydra ready to compose."""
    row = {"prompt": "x" * 40, "responses": ["y" * 80, "z" * 60], "scores": [1, 2]}
    (folder / "sets.jsonl").write_text("".join(json.dumps({**row, "id": str(i)}) + "\n" for i in range(20)))
    (folder / "sets.csv").write_text("a,b\n")
    (folder / "folder").mkdir()
    (folder / "folder" / "config.json").write_text(json.dumps(SHAPE))
    (folder / "folder" / "model.safetensors").write_bytes(b"0")
    before = os.getcwd()
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    os.chdir(folder)
    variables = {"HOME": str(folder), "MPO_CACHE": str(folder / "cache"), "HYDRA_FULL_ERROR": "1"}
    machine = Machine("this machine", 1e10, 1e10)
    measured = mock.patch("mpo.planning.forecast.this_machine", lambda *arguments: machine)
    try:
        with mock.patch.dict(os.environ, variables), measured:
            check_architecture(SHAPE)  # imports what takes seconds
            yield
    finally:
        os.chdir(before)
        for number, handler in handlers.items():
            signal.signal(number, handler)
        gc.enable()
        GlobalHydra.instance().clear()
        composed.cache_clear()
        _pickled.cache_clear()


@functools.lru_cache(maxsize=3000)
def composed(overrides: tuple[str, ...]) -> DictConfig:
    if not GlobalHydra.instance().is_initialized():
        initialize_config_dir(register(), version_base="1.3").__enter__()
    return compose(CONFIG_NAME, overrides=list(overrides), return_hydra_config=True)


@functools.lru_cache(maxsize=3000)
def _pickled(overrides: tuple[str, ...]) -> bytes:
    return pickle.dumps(composed(overrides))


def planned(arguments: Sequence[str]) -> Outcome:
    """Compose, check and plan, with Hydra's composed options kept from one command line to the next."""

    def configuration() -> DictConfig:
        parsed = OverridesParser.create().parse_overrides(list(arguments))
        values = [one for one in parsed if one.key_or_group not in GROUPS and one.package is None]
        values = [one for one in values if not (one.is_sweep_override() or one.is_hydra_override())]
        chosen = [one.input_line for one in parsed if one not in values]
        cfg: DictConfig = pickle.loads(_pickled(tuple(str(line) for line in chosen)))
        ConfigLoaderImpl._apply_overrides_to_config(values, cfg)
        return cfg

    def plan(cfg: DictConfig) -> None:
        config = typed(cfg)
        run(config, Path("run"), dict(cfg.hydra.runtime.choices), list(arguments))
        json.dumps(to_plain(config), allow_nan=False).encode()

    def attempt() -> int:
        begun = False
        try:
            cfg = configuration()
            begun = True
            plan(cfg)
        except Exception as error:
            code = command_line.report(error, explain(error) if begun else explain_composition(error))
            if code is None:
                raise
            return code
        return 0

    return _outcome(attempt)


def whole_command(arguments: Sequence[str]) -> Outcome:
    """The command itself, as ``python -m mpo.run`` calls it."""

    def attempt() -> int:
        command_line._begun.clear()
        handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
        hook, raises = sys.unraisablehook, logging.raiseExceptions
        before = GlobalHydra.instance().hydra
        GlobalHydra.instance().clear()
        try:
            with mock.patch.object(sys, "argv", ["mpo.run", *arguments]):
                command_line.main()
        except SystemExit as end:
            return int(end.code or 0)
        finally:
            GlobalHydra.instance().clear()
            GlobalHydra.instance().hydra = before
            sys.unraisablehook, logging.raiseExceptions = hook, raises
            for number, handler in handlers.items():
                signal.signal(number, handler)
            gc.enable()
            gc.unfreeze()
        return 0

    return _outcome(attempt)


def _outcome(attempt: Callable[[], int]) -> Outcome:
    def stop(*_: object) -> None:
        raise Slow

    def member(cfg: DictConfig) -> RunConfig:
        """A run begins, alone or as the next of a multirun: its time counts from here."""
        began.append(time.process_time())
        signal.setitimer(signal.ITIMER_PROF, SECONDS)
        return typed(cfg)

    out, err, crash, code = io.StringIO(), io.StringIO(), "", -1
    began = [time.process_time()]  # another program's work is no fault of the command line
    before = {which: signal.signal(which, stop) for which in (signal.SIGALRM, signal.SIGPROF)}
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    signal.alarm(20 * SECONDS)
    try:
        with (
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
            mock.patch.object(command_line, "typed", member),
        ):
            code = attempt()
    except (Exception, Slow):
        crash = traceback.format_exc()
    finally:
        signal.alarm(0)
        signal.setitimer(signal.ITIMER_PROF, 0)
        for which, handler in before.items():
            signal.signal(which, handler)
    ends = [*began[1:], time.process_time()]
    longest = max(end - start for start, end in zip(began, ends, strict=True))
    return Outcome(code, out.getvalue(), err.getvalue(), longest, crash)
