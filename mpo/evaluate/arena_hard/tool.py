"""Arena-Hard's own tool, run as a program in a folder of the stage's: the user's checkout is read, never written."""

from __future__ import annotations

import ast
import os
import shlex
import shutil
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from mpo.errors import ConfigError, ProcessError, cut
from mpo.evaluate.arena_hard.files import Layout, without_gaps

LOG = "tool.log"
SETTING, ENDPOINT = "setting.yaml", "endpoint.yaml"
FIRST_WAIT_S = 2.0


@dataclass(frozen=True)
class Tool:
    """A checkout of arena-hard-auto. ``settings``: of the benchmark; ``baselines``: models whose answers it needs."""

    folder: Path
    layout: Layout
    settings: dict[str, Any]
    baselines: tuple[str, ...]

    @property
    def judge(self) -> str:
        """The judge that its settings name."""
        return str(self.settings["judge_model"])


@dataclass(frozen=True)
class Judge:
    """Who is asked: name in the files, name under which the server serves it, and where (``url`` None: OpenAI)."""

    name: str
    model: str
    url: str | None
    key_variable: str
    parallel: int


def find_tool(folder: Path, benchmark: str, categories: Sequence[str]) -> Tool:
    """The tool in ``folder``; raises ConfigError for what is none, or of a version with other files."""
    where = "measure.tool"
    if not (folder / "gen_judgment.py").is_file():
        raise ConfigError(f"'{folder}' has no gen_judgment.py", where, "name a checkout of arena-hard-auto")
    of_2025, of_2024 = folder / "config" / f"{benchmark}.yaml", folder / "config" / "judge_config.yaml"
    needed: dict[str, None] = {}
    if of_2025.is_file() and (folder / "utils" / "judge_utils.py").is_file():
        layout, settings = Layout.of_2025, _settings(of_2025)
        baselines = _baselines(folder / "utils" / "judge_utils.py")
        if missing := [each for each in categories if each not in baselines]:
            what = f"this version of the tool has no settings for the category '{missing[0]}'"
            raise ConfigError(what, where, "take the question file that belongs to it")
        needed = dict.fromkeys(baselines[each] for each in categories)
    elif of_2024.is_file() and (folder / "utils.py").is_file():
        layout, settings = Layout.of_2024, _settings(of_2024)
        if settings.get("bench_name") != benchmark:
            what = f"this version of the tool is for {settings.get('bench_name')}, not {benchmark}"
            raise ConfigError(what, where, "take the version of the benchmark")
        needed = dict.fromkeys([str(settings.get("baseline_model"))])
    else:
        what = f"'{folder}' is another version of arena-hard-auto than those of 2024 and 2025, or has no {benchmark}"
        raise ConfigError(what, where, "check out 1b87abf (2024) or 196f6b8 (2025)")
    if "judge_model" not in settings:
        raise ConfigError("the tool's settings name no judge_model", where, "take its own settings, unchanged")
    for model in needed:
        file = folder / "data" / benchmark / "model_answer" / f"{model}.jsonl"
        if not file.is_file() or file.stat().st_size == 0:
            what = f"the answers of the baseline {model} are not there (data/{benchmark}/model_answer)"
            raise ConfigError(what, where, "download them as the tool's README says")
    return Tool(folder, layout, settings, tuple(needed))


def prepare(tool: Tool, benchmark: str, questions: Path, models: Sequence[str], judge: Judge, work: Path) -> None:
    """Write what the tool reads beside the answers: settings with these models, the endpoint, the baseline's answers.

    The judge's key is in neither file: the tool's client takes it from its environment.
    """
    data = work / "data" / benchmark
    for name in tool.baselines:
        _link(tool.folder / "data" / benchmark / "model_answer" / f"{name}.jsonl", data / "model_answer")
    data.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(questions, data / "question.jsonl")
    settings = {**tool.settings, "judge_model": judge.name, "model_list": list(models)}
    endpoint = {
        **{"model": judge.model, "model_name": judge.model, "endpoints": None, "api_type": "openai"},
        **{"parallel": judge.parallel, "max_tokens": settings.get("max_tokens", 4096), "temperature": 0.0},
    }
    (work / SETTING).write_text(yaml.safe_dump(settings, allow_unicode=True), encoding="utf-8")
    (work / ENDPOINT).write_text(yaml.safe_dump({judge.name: endpoint}), encoding="utf-8")


def command(python: str, folder: str) -> list[str]:
    """What judges, to be run in the folder of the answers."""
    program = str(Path(folder) / "gen_judgment.py")
    return [python, program, "--setting-file", SETTING, "--endpoint-file", ENDPOINT]


def run_tool(
    tool: Tool, python: str, judge: Judge, work: Path, files: Mapping[str, Path], wanted: int, attempts: int
) -> None:
    """Run the tool until every judgment is whole, ``attempts`` times at most, with growing waits.

    Args:
        work: where :func:`prepare` has written.
        files: judgments by model, which the tool writes; what is whole there is not asked again.
        wanted: questions a model.

    Raises:
        ConfigError: the interpreter cannot be run.
        ProcessError: the tool has ended with an error every time.
    """
    words, code = command(python, str(tool.folder)), 0
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    if judge.url is not None:
        environment["OPENAI_BASE_URL"] = judge.url
    # Any text will do for a server without keys; the client wants one.
    environment["OPENAI_API_KEY"] = os.environ.get(judge.key_variable) or "none"
    for attempt in range(attempts):
        whole = [without_gaps(path) for path in files.values()]
        if all(count >= wanted for count in whole):
            code = 0
            break
        if attempt:
            time.sleep(FIRST_WAIT_S * 2 ** (attempt - 1))
        with (work / LOG).open("ab") as log:
            try:
                process = subprocess.Popen(words, cwd=work, env=environment, stdout=log, stderr=log)
            except OSError as error:
                what = f"'{python}' cannot be run: {error.strerror or error}"
                raise ConfigError(what, "measure.python", "name the Python of the tool's own environment") from None
            try:
                code = process.wait()
            finally:
                if process.poll() is None:  # this stage was asked to stop
                    process.terminate()
                    process.wait()
    for each in tool.baselines:
        (work / "data").joinpath(tool.settings["bench_name"], "model_answer", f"{each}.jsonl").unlink(missing_ok=True)
    if code != 0:
        what = f"arena-hard-auto ended with {code}: {_last_line(work / LOG)} ({shlex.join(words[:2])})"
        raise ProcessError(what, "measure.tool", "look at it; the same command goes on from where it was")


def _settings(path: Path) -> dict[str, Any]:
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise ConfigError(f"{path.name} cannot be read: {error}", "measure.tool", "take the tool's own file") from None
    return found if isinstance(found, dict) else {}


def _baselines(path: Path) -> dict[str, str]:
    """Each category's baseline, of the dictionary JUDGE_SETTINGS; the file is read, not run."""
    found = {}
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not (isinstance(node, ast.Assign) and any(ast.unparse(each) == "JUDGE_SETTINGS" for each in node.targets)):
            continue
        assert isinstance(node.value, ast.Dict)
        for category, options in zip(node.value.keys, node.value.values, strict=True):
            if isinstance(category, ast.Constant) and isinstance(options, ast.Dict):
                for key, value in zip(options.keys, options.values, strict=True):
                    if isinstance(key, ast.Constant) and key.value == "baseline" and isinstance(value, ast.Constant):
                        found[str(category.value)] = str(value.value)
    return found


def _link(target: Path, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    link = folder / target.name
    link.unlink(missing_ok=True)
    link.symlink_to(target.resolve())


def _last_line(log: Path) -> str:
    lines = [line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    return cut(lines[-1].strip() if lines else "it printed nothing", 160)
