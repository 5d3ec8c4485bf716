"""Random command lines.

python -m tests.unit.config.fuzz 5000 7     # so many command lines from this seed; prints what goes wrong
"""

from __future__ import annotations

import random
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from mpo.config.paths import options
from tests.unit.config.in_process import GROUPS, Outcome, composed, planned, surroundings, whole_command

BASES = (
    (),
    ("model=small", "data.source=sets.jsonl"),
    ("loss=dpo", "model=llama3_8b"),
    ("model=llama3_8b_instruct", "regime=iterative", "train/lora=adapters"),
    ("regime=iterative",),
    ("regime=sft",),
    ("model=small", "data=mixture", "data.source.parts={a:{path:sets.jsonl,weight:2,limit:9},b:{path:owner/name}}"),
    ("model=llama3_8b", "model.path=folder", "data=response_sets", "data.source=sets.jsonl", "launcher=local"),
)
"""Beginnings of command lines that are valid by themselves."""
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


class Fuzz:
    """Command lines of one seed, each run in a folder with a file of sets and a model's folder.

    Hydra composes anew for each choice of options only; values are set on a copy by its own code, which takes a
    tenth of the time. Every ``whole``-th command line goes through the command itself.
    """

    def __init__(self, seed: int, whole: int = 20) -> None:
        self.random = random.Random(seed)
        self.whole = whole
        self.keys = sorted({key for base in BASES for key in _keys(composed(base))})
        self.values = {}
        for base in BASES:
            found = composed(base)
            self.values |= {key: OmegaConf.select(found, key, default=None) for key in _keys(found)}

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
