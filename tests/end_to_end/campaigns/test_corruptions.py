"""One damaged file in a checkpoint, a finished stage or a model's folder: told, or without effect on the result."""

from __future__ import annotations

import os
import random
import shutil
import signal
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.end_to_end.campaigns.conftest import trials
from tests.end_to_end.campaigns.prepared import Finished, finish
from tests.end_to_end.conftest import TIMEOUT_S, MakeCommandLine, Outcome
from tests.end_to_end.runs import Server

Damage = Callable[[bytes, random.Random], bytes | None]


def flipped(content: bytes, chance: random.Random) -> bytes:
    changed = bytearray(content)
    changed[chance.randrange(len(changed))] ^= 1 << chance.randrange(8)
    return bytes(changed)


DAMAGES: dict[str, Damage] = {
    "bit flipped": flipped,
    "cut": lambda content, chance: content[: chance.randrange(len(content))],
    "emptied": lambda content, chance: b"",
    "missing": lambda content, chance: None,
    "replaced by noise": lambda content, chance: chance.randbytes(len(content)),
}


def damage(file: Path, kind: str, chance: random.Random, keep_time: bool) -> None:
    """Damage a file, which may be a hard link; ``keep_time``: as a disk does, which leaves the time of change alone."""
    stat, content = file.stat(), DAMAGES[kind](file.read_bytes(), chance)
    file.unlink()
    if content is not None:
        file.write_bytes(content)
        if keep_time:
            os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def files_of(folder: Path) -> list[Path]:
    """Files that may be damaged, those of logs and empty ones left out."""
    return sorted(
        path for path in folder.rglob("*") if path.is_file() and "logs" not in path.parts and path.stat().st_size
    )


@pytest.fixture(scope="module")
def interrupted(server: Server, finished: dict[str, Finished], command_lines: MakeCommandLine) -> Path:
    """The half-built folder of a training with at least two checkpoints."""
    undisturbed, command_line = finished["off-policy"], command_lines()
    undisturbed.copy(command_line.cache, {"train"})
    run = server.start(command_line, undisturbed.arguments)
    while run.alive():
        if any(file.read_bytes().count(b"\n") >= 7 for file in command_line.cache.glob("train/*.work/metrics.jsonl")):
            os.killpg(run.pid, signal.SIGKILL)
        time.sleep(0.005)
    assert run.wait() == -signal.SIGKILL
    run.wait_until_gone(TIMEOUT_S)
    (work,) = command_line.cache.glob("train/*.work")
    assert len(list(work.glob("checkpoints/step-*"))) >= 2
    return work


@pytest.fixture(scope="module")
def model(finished: dict[str, Finished], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The starting policy as a folder of the user's, its weights in several files with an index."""
    from transformers import AutoModelForCausalLM

    start = next(path for name, path, _ in finished["off-policy"].stages if name == "start/sft") / "policy"
    folder = tmp_path_factory.mktemp("user") / "model"
    shutil.copytree(start, folder, ignore=shutil.ignore_patterns("*.safetensors"))
    AutoModelForCausalLM.from_pretrained(start).save_pretrained(folder, max_shard_size="1MB")
    assert len(list(folder.glob("model-*.safetensors"))) > 1
    return folder


@pytest.fixture(scope="module")
def from_folder(server: Server, command_lines: MakeCommandLine, model: Path) -> Finished:
    """An undisturbed run that starts from the user's folder."""
    return finish(server, command_lines, *folder_arguments(model))


def folder_arguments(model: Path) -> tuple[str, ...]:
    return (f"model.path={model}", "model.scratch=null", "train.epochs=2")


def check_told(outcome: Outcome, where: str) -> None:
    """One line for people, and status 2."""
    assert outcome.code == 2 and "Traceback" not in outcome.err, f"{where}: status {outcome.code}\n{outcome.err}"
    assert len(outcome.mistakes) == 1, f"{where}\n{outcome.err}"
    assert all(len(line) <= 400 for line in outcome.err.splitlines()), f"{where}\n{outcome.err}"


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("seed", trials(70))
def test_damage_in_the_cache(
    seed: int,
    finished: dict[str, Finished],
    interrupted: Path,
    server: Server,
    command_lines: MakeCommandLine,
    counts: Counter[str],
) -> None:
    chance = random.Random(seed)
    undisturbed, command_line = finished["off-policy"], command_lines()
    stages = {name: path for name, path, _ in undisturbed.stages}
    place = ["checkpoint", "stage", "stage", "finished training"][seed % 4]
    if place == "finished training":
        name, without = "train", {name for name in stages if name.startswith("evaluate")}
    elif place == "stage":
        name, without = (
            chance.choice([name for name in stages if "evaluate" not in name and name != "train"]),
            {"train"},
        )
    else:
        name, without = "train", {"train"}
    undisturbed.copy(command_line.cache, without)
    folder = command_line.cache / stages[name].parent.name / stages[name].name
    if place == "checkpoint":
        folder = folder.with_name(interrupted.name)
        shutil.copytree(interrupted, folder)
    file = chance.choice(files_of(folder))
    kind = chance.choice(list(DAMAGES))
    damage(file, kind, chance, keep_time=True)
    outcome = server.start(command_line, undisturbed.arguments).outcome()
    where = f"{place} {name}: {file.relative_to(folder)} {kind}"
    counts["corruptions"] += 1
    counts[place] += 1
    if outcome.code == 0:
        assert "Traceback" not in outcome.err, f"{where}\n{outcome.err}"
        assert outcome.weights == undisturbed.outcome.weights, f"{where}: other weights\n{outcome.err}"
        assert outcome.result["evaluation"] == undisturbed.outcome.result["evaluation"], where
        counts["rebuilt or without effect"] += 1
        counts["with a warning"] += "mpo: warning:" in outcome.err
    else:
        check_told(outcome, where)
        counts["refused"] += 1


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("seed", trials(30))
def test_damage_in_a_folder_of_the_users(
    seed: int,
    from_folder: Finished,
    model: Path,
    server: Server,
    command_lines: MakeCommandLine,
    counts: Counter[str],
    tmp_path: Path,
) -> None:
    chance = random.Random(seed)
    command_line, folder = command_lines(), tmp_path / "model"
    from_folder.copy(command_line.cache, set())
    shutil.copytree(model, folder)
    weights = chance.random() < 0.4
    file = chance.choice([path for path in files_of(folder) if (path.suffix == ".safetensors") == weights])
    kind = chance.choice(list(DAMAGES))
    damage(file, kind, chance, keep_time=False)
    arguments = {one.partition("=")[0]: one for one in (*from_folder.arguments, *folder_arguments(folder))}
    outcome = server.start(command_line, tuple(arguments.values())).outcome()
    where = f"{file.name} {kind}"
    counts["corruptions"] += 1
    counts["folder of the user's"] += 1
    if outcome.code == 0:
        assert not (weights and kind != "bit flipped"), f"{where}: trained\n{outcome.err}"
        assert "Traceback" not in outcome.err, f"{where}\n{outcome.err}"
        trained = {row["name"]: row["path"] for row in outcome.result["stages"]}["train"]
        before = {name: path for name, path, _ in from_folder.stages}["train"]
        assert Path(trained).name != before.name or outcome.weights == from_folder.outcome.weights, where
        assert not weights or Path(trained).name != before.name, f"{where}: a stale result"
        counts["another model"] += 1
    else:
        check_told(outcome, where)
        counts["refused"] += 1
