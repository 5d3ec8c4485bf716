"""Reward models where they are used: in the scoring stage, beside one another, on stored sets."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from mpo.data.store import read_stored_sets, write_sets
from mpo.errors import DataError
from mpo.score import Item
from mpo.score.pair_rm import PairRM
from mpo.score.reward_model import CUT
from mpo.stages import score
from mpo.stages.context import StageContext
from mpo.stages.nodes import score as node
from mpo.stages.summary import Summary
from mpo.types import Response, ResponseSet
from tests.unit.score import test_pair_rm, test_reward_model, tiny

SETS = [
    ResponseSet("a", tiny.ITEMS[0].prompt, tuple(Response(one.response.content) for one in tiny.ITEMS[:3])),
    ResponseSet("b", tiny.ITEMS[3].prompt, (Response("No"), Response("Hold the door open."))),
]


def run(tmp_path: Path, scorers: dict[str, dict[str, object]]) -> Summary:
    for name in ("sets", "out"):
        (tmp_path / name).mkdir()
    for split in ("train", "heldout"):
        write_sets(tmp_path / "sets" / f"{split}.parquet", SETS)
    config = node.Config(scorers, scorers, [])
    score.run(StageContext("score", config, node.Settings(), node.Inputs(tmp_path / "sets"), tmp_path / "out"))
    return Summary.read(tmp_path / "out")


def test_two_reward_models_score_both_splits(tmp_path: Path) -> None:
    folders = {name: tmp_path / name for name in ("single", "pair")}
    for folder in folders.values():
        folder.mkdir()
    test_reward_model.saved(folders["single"])
    test_pair_rm.saved(folders["pair"])
    options = {"precision": "fp32", "max_tokens": 50}
    single = {"_target_": "mpo.score.reward_model.RewardModel", "path": str(folders["single"]), **options}
    pair = {"_target_": "mpo.score.pair_rm.PairRM", "path": str(folders["pair"])}
    summary = run(tmp_path, {"single": single, "pair": pair})
    one_by_one = test_reward_model.model(folders["single"], max_tokens=50)
    for split in ("train", "heldout"):
        found = list(read_stored_sets(tmp_path / "out" / f"{split}.parquet"))
        for stored in found:
            items = [Item(stored.prompt, each.message) for each in stored.responses]
            scores = [one_by_one.score([item])[0] for item in items]
            assert [each.scores["single"] for each in stored.responses] == pytest.approx(scores, abs=1e-5)
            compared = PairRM(str(folders["pair"])).score(items)
            assert [each.scores["pair"] for each in stored.responses] == pytest.approx(compared, abs=1e-5)
            assert list(stored.responses[0].scores) == ["single", "pair"]
    cut = one_by_one.take_warnings()
    assert cut[CUT] == 2 * summary.warnings["train"][f"single: {CUT}"] > 0


def test_a_head_of_zeros_is_one_line(tmp_path: Path) -> None:
    folder = tmp_path / "reward"
    folder.mkdir()
    weights = load_file(test_reward_model.saved(folder) / "model.safetensors")
    save_file({**weights, "score.weight": torch.zeros(1, 16)}, folder / "model.safetensors")
    scorer = {"_target_": "mpo.score.reward_model.RewardModel", "path": str(folder), "max_tokens": 256}
    with pytest.raises(DataError, match="score: zeros gave all 5 responses of heldout the same score, 0; check that"):
        run(tmp_path, {"zeros": scorer})
