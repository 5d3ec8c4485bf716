"""Random command lines, and a way to compose, check and plan them in this process.

python -m tests.unit.config.fuzz 5000 7     # so many command lines from this seed; prints what goes wrong
"""

from __future__ import annotations

import contextlib
import functools
import gc
import io
import json
import logging
import os
import pickle
import random
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

from hydra import compose, initialize_config_dir
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf

from mpo import command_line
from mpo.config.compose import CONFIG_NAME, register, typed
from mpo.config.messages import explain, explain_composition
from mpo.config.paths import groups, options
from mpo.planning.machine import Machine
from mpo.runner import run
from mpo.stages.context import to_plain
from mpo.stages.scratch import check_architecture

SECONDS, CHARACTERS = 10, 400
"""Most time of a command line, and most characters of a line that it prints."""
GROUPS = [*groups(), "train/lora"]
BASES = (
    (),
    ("model=small", "data.source=sets.jsonl"),
    ("loss=dpo", "model=llama3_8b"),
    ("model=llama3_8b_instruct", "regime=iterative", "train/lora=adapters"),
    ("regime=iterative",),
    ("regime=sft",),
    ("model=llama3_8b", "model.path=folder", "data=response_sets", "data.source=sets.jsonl", "launcher=local"),
)
"""Beginnings of command lines that are valid by themselves."""
SHAPE = {
    **{"model_type": "llama", "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "vocab_size": 100},
    **{"num_attention_heads": 4, "max_position_embeddings": 8192},
}
# fmt: off
NUMBERS = (
    "0", "1", "2", "-1", "0.5", "1.0", "1e-300", "1e300", "1e-9", "nan", "inf", "-inf", "-0", "-0.0", "0x10", "1_000",
    "3", "7", "1000", "100000", "1000000000", "1000000000000000000", "9" * 30, "9" * 400, "1e999", ".5", "5.", "01",
)
TEXTS = (
    "", "''", '""', "null", "None", "true", "off", "x", "a/b", "owner/name", "x" * 300, "/".join(["y"] * 3000),
    "'a b'", '"tab\tinside"', "é", "日本語", "'🙂'", "'\u202e abc'", "'\udc80'", "'a\nb'", "'\x1b[31mred'", "'\x7f'",
    "'~nouser/x'", "'~'", "/proc/x", "/sys/x", "/dev/null/x", ".", "..", "/", "./nowhere", "nowhere.jsonl",
    "folder", "sets.jsonl", "sets.csv", "folder/config.json", "host:99999", "host:²", "localhost:0", "mpo.losses.MPO",
    "${seed}", "${nowhere}", "${oc.env:NOPE}", "${oc.env:HOME}", "${.x}", "${", "${model.beta}", "${now:%Y}", "???",
    "[]", "[1]", "[1,2]", "[a,b]", "[[1],[2]]", "{}", "{a:1}", "{a:{b:[1,{c:2}]}}", "{1:a}", "{_target_:os.system}",
    "[1.0,nan]", "[" * 30 + "]" * 30, "'%'", "'*'", "a=b", "'\\'", "#x", "!!python/object:os.system", "&a", "*a",
)
# fmt: on
SWEEPS = (
    "0,1",
    "range(0)",
    "range(2)",
    "range(5,0)",
    "glob(*)",
    "glob(no*)",
    "choice(1,2)",
    "interval(0,1)",
    "1,1",
    ",",
)


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
        if self.code == 2 and not (len(lines) == 1 and lines[0].startswith("mpo: error: ")):
            return f"no single line: {self.err[:500]!r}"
        longest = max((*self.out.splitlines(), *lines), key=len, default="")
        return f"a line of {len(longest)} characters: {longest[:200]!r}" if len(longest) > CHARACTERS else ""


class Slow(BaseException):
    """The command line took too long."""


class Fuzz:
    """Command lines of one seed, each run in a folder with a file of sets and a model's folder.

    Hydra composes anew for each choice of options only; values are set on a copy by its own code, which takes a
    tenth of the time. Every ``whole``-th command line goes through the command itself.
    """

    def __init__(self, seed: int, whole: int = 20) -> None:
        self.random = random.Random(seed)
        self.whole = whole
        self.keys = sorted({key for base in BASES for key in _keys(_composed(base))})
        self.values = {}
        for base in BASES:
            composed = _composed(base)
            self.values |= {key: OmegaConf.select(composed, key, default=None) for key in _keys(composed)}

    def lines(self, count: int) -> Iterator[tuple[list[str], Outcome]]:
        """``count`` command lines with what they ended with."""
        for number in range(count):
            if number % self.whole == 0:
                arguments = self.arguments(sweeps=True)
                yield arguments, whole_command(arguments)
            else:
                arguments = self.arguments(sweeps=False)
                yield arguments, planned(arguments)

    def arguments(self, sweeps: bool) -> list[str]:
        """A valid beginning, then options and values of all kinds, some of them mutilated."""
        draw = self.random
        found = list(draw.choice(BASES))
        for _ in range(draw.choice((1, 1, 1, 1, 2, 2, 3))):
            kind = draw.random()
            if kind < 0.2:
                found.append(self._choice())
            else:
                key = draw.choice(self.keys)
                fits = draw.random() < 0.5
                found.append(f"{key}={self._near(key)}" if fits else f"{self._sign()}{key}={self._value()}")
            if draw.random() < 0.05:
                found[-1] = self._mutilated(found[-1])
        if sweeps and draw.random() < 0.5:
            key = draw.choice(("seed", "loss", "train.lr", "name", draw.choice(self.keys)))
            found = ["-m", *found, f"{key}={draw.choice(SWEEPS)}"]
        return [*found, "dry_run=true"]

    def _sign(self) -> str:
        return self.random.choice(("", "", "", "", "+", "++", "~"))

    def _choice(self) -> str:
        group = self.random.choice(GROUPS)
        valid = options(group)
        option = self.random.choice(valid) if valid and self.random.random() < 0.9 else self._value()
        package = self.random.choice(("", "", "", "", "", "", "@x", "@_global_", "@:"))
        return f"{self.random.choice(('', '', '', '', self._sign()))}{group}{package}={option}"

    def _near(self, key: str) -> str:
        """A value of the kind that the key has."""
        value = self.values.get(key)
        if isinstance(value, bool):
            return self.random.choice(("true", "false"))
        if isinstance(value, int | float):
            return str(self.random.choice((value, value * 2, value + 1, value / 2, 1, 2, type(value)(3))))
        return self.random.choice(("null", "a", str(value).replace("=", ""))) if value is not None else "null"

    def _value(self) -> str:
        return self.random.choice(NUMBERS if self.random.random() < 0.5 else TEXTS)

    def _mutilated(self, text: str) -> str:
        place = self.random.randrange(len(text) + 1)
        noise = self.random.choice((*"=.,+~@:'\"[]{}()\\$ \t", "", "\u200b", "..", "=="))
        return text[:place] + noise + text[place + self.random.randrange(2) :]


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
        _composed.cache_clear()
        _pickled.cache_clear()


@functools.lru_cache(maxsize=3000)
def _composed(overrides: tuple[str, ...]) -> DictConfig:
    if not GlobalHydra.instance().is_initialized():
        initialize_config_dir(register(), version_base="1.3").__enter__()
    return compose(CONFIG_NAME, overrides=list(overrides), return_hydra_config=True)


@functools.lru_cache(maxsize=3000)
def _pickled(overrides: tuple[str, ...]) -> bytes:
    return pickle.dumps(_composed(overrides))


def _keys(node: DictConfig, prefix: str = "") -> Iterator[str]:
    """Every key of a configuration, those that hold others too; of Hydra's own some that people set."""
    if not prefix:
        yield from ("hydra.run.dir", "hydra.sweep.dir", "hydra.job.chdir", "hydra.verbose", "hydra.job.name")
        yield from ("loss.beat", "train", "score.options.x", "model.architecture.rope_theta", "partition.k")
    for name, value in node._content.items():  # type: ignore[union-attr]
        key = f"{prefix}{name}"
        if key not in ("hydra", "dry_run"):
            yield key
            if isinstance(value, DictConfig) and not (value._is_none() or value._is_interpolation()):
                yield from _keys(value, f"{key}.")


def planned(arguments: Sequence[str]) -> Outcome:
    """Compose, check and plan, with Hydra's composed options kept from one command line to the next."""

    def composed() -> DictConfig:
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

    def told() -> int:
        begun = False
        try:
            cfg = composed()
            begun = True
            plan(cfg)
        except Exception as error:
            code = command_line.report(error, explain(error) if begun else explain_composition(error))
            if code is None:
                raise
            return code
        return 0

    return _outcome(told)


def whole_command(arguments: Sequence[str]) -> Outcome:
    """The command itself, as ``python -m mpo.run`` calls it."""

    def told() -> int:
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

    return _outcome(told)


def _outcome(told: object) -> Outcome:
    def stop(*_: object) -> None:
        raise Slow

    out, err, crash, code = io.StringIO(), io.StringIO(), "", -1
    began = time.process_time()  # another program's work is no fault of the command line
    before = {which: signal.signal(which, stop) for which in (signal.SIGALRM, signal.SIGPROF)}
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    signal.alarm(20 * SECONDS)
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = told()  # type: ignore[operator]
    except (Exception, Slow):
        crash = traceback.format_exc()
    finally:
        signal.alarm(0)
        signal.setitimer(signal.ITIMER_PROF, 0)
        for which, handler in before.items():
            signal.signal(which, handler)
    return Outcome(code, out.getvalue(), err.getvalue(), time.process_time() - began, crash)


def main() -> None:
    """Run some and print what goes wrong, each kind once."""
    count, seed = int(sys.argv[1]), int(sys.argv[2])
    began, kinds, codes = time.monotonic(), {}, {0: 0, 2: 0}
    with tempfile.TemporaryDirectory() as folder, surroundings(Path(folder)):
        for arguments, outcome in Fuzz(seed).lines(count):
            codes[outcome.code] = codes.get(outcome.code, 0) + 1
            if sum(codes.values()) % 100 == 0:
                print(f"{sum(codes.values())} in {time.monotonic() - began:.0f} s: {codes}", flush=True)
            if len(sys.argv) > 3:
                print(ascii(arguments)[:300], outcome.code, ascii(outcome.err)[:420])
            if outcome.fault:
                kind = outcome.fault.strip().splitlines()[-1][:100]
                kinds[kind] = kinds.get(kind, 0) + 1
                if kinds[kind] == 1:
                    print(
                        f"--- {ascii(arguments)[:600]}\n{ascii(outcome.fault[-1500:])}".replace("\\n", "\n"), flush=True
                    )
    print(f"{count} command lines in {time.monotonic() - began:.0f} s: {codes}; faults {sum(kinds.values())}")
    for kind, number in kinds.items():
        print(f"{number:5} {ascii(kind)}")


if __name__ == "__main__":
    main()
