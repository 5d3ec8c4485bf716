"""Parts that the command line checks before anything is loaded are checked without anything heavy."""

from __future__ import annotations

import subprocess
import sys

HEAVY = ("torch", "transformers", "scipy", "numpy", "datasets", "pyarrow", "vllm", "matplotlib", "httpx")
CODE = f"""
import sys
import yaml
from mpo.config.paths import folder
from mpo.config.targets import build
from mpo.data.sources import Source
from mpo.evaluate import Measure
from mpo.sample.base import Sampler
from mpo.score.base import Scorer

GIVEN = {{"urls": ["http://localhost:8000/v1"], "parts": {{"a": {{"path": "x"}}}}}}
SERVED = {{"urls": GIVEN["urls"], "model": "x"}}
CHOSEN = {{
    "mpo.score.llm_judge.LLMJudge": SERVED,
    "mpo.score.llm_judge_pairwise.LLMJudgePairwise": SERVED,
    "mpo.evaluate.judged_win_rate.JudgedWinRate": {{"judges": {{"a": {{}}}}}},
}}

def nodes(node):
    if isinstance(node, dict):
        if "_target_" in node:
            given = {{key: GIVEN.get(key, "x") if value == "???" else value for key, value in node.items()}}
            if given.get("question_file", "") is None:  # one of several that may be given
                given["question_file"] = "x"
            yield {{**given, **CHOSEN.get(node["_target_"], {{}})}}
        for value in node.values():
            yield from nodes(value)

made = set()
for group, base in (("evaluate", Measure), ("sampler", Sampler), ("score", Scorer), ("data", Source)):
    for path in sorted((folder("conf") / group).glob("*.yaml")):
        for node in nodes(yaml.safe_load(path.read_text())):
            made.add(type(build(node, base, (), group)).__name__)
print(*sorted(made))
print(*sorted(set({HEAVY!r}) & sys.modules.keys()))
"""


def test_measures_samplers_scorers_and_sources_are_made_without_heavy_libraries() -> None:
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True)
    made, heavy = done.stdout.splitlines()
    assert {*made.split()} == {
        *("World", "Mixture", "HFSampler", "VLLMSampler", "ServerSampler", "FunctionScorer", "RewardModel", "PairRM"),
        *("LLMJudge", "LLMJudgePairwise", "Examples", "HeldOutRanking", "JudgedWinRate", "WinRate"),
        *("AlpacaEval", "ArenaHard", "LMEval", "MTBench"),
    }
    assert heavy == ""


def test_stages_of_the_runs_own_process_import_no_transformers() -> None:
    """Which would be seconds of every run."""
    code = "import sys; from mpo.stages import data, evaluate, partition, score; print('transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"
