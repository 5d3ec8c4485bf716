"""Reward models in vLLM's pooling runner, the real one, against transformers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForSequenceClassification

from mpo.config.training import Precision
from mpo.errors import ConfigError
from mpo.score.reward_model import Engine, Head, RewardModel
from tests.unit.score import tiny


def saved(folder: Path, outputs: int = 1) -> Path:
    """A tiny reward model with heads of a size that vLLM takes."""
    tiny.tokenizer(folder)
    torch.manual_seed(3)
    sizes: dict[str, Any] = {
        "max_position_embeddings": 256,
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
    }
    config = LlamaConfig(vocab_size=320, num_labels=outputs, pad_token_id=4, initializer_range=0.3, **sizes)
    model = LlamaForSequenceClassification(config)
    torch.nn.init.normal_(model.score.weight, std=1.0)
    model.save_pretrained(folder)
    return folder


def model(folder: Path, **options: object) -> RewardModel:
    return RewardModel(**{"path": str(folder), "max_tokens": 256, "precision": Precision.fp32, **options})  # type: ignore


@pytest.mark.slow
def test_its_scores_are_those_of_transformers_without_a_sigmoid(tmp_path: Path) -> None:
    pytest.importorskip("vllm", reason="vLLM is not installed (make install-vllm)")
    folder = saved(tmp_path)
    scorer = model(folder, engine=Engine.vllm)
    scorer.check()
    found, expected = scorer.score(tiny.ITEMS), model(folder).score(tiny.ITEMS)
    scorer.close()
    assert found == pytest.approx(expected, abs=1e-4)
    assert max(found) > 1 and max(found) - min(found) > 0.5  # no sigmoid would give these


def test_a_head_that_it_does_not_have_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"score\.engine: vLLM has no armorm head; score\.engine=transformers"):
        RewardModel("owner/model", head=Head.armorm, engine=Engine.vllm).check()


def test_where_it_is_not_installed_that_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="vLLM is not installed; make install-vllm, or take score.engine=transfor"):
        RewardModel("owner/model", engine=Engine.vllm).check()


@pytest.mark.parametrize("share", [0.0, 1.5])
def test_a_share_of_memory_out_of_range_is_refused(share: float) -> None:
    with pytest.raises(ConfigError, match="gpu_memory"):
        RewardModel("owner/model", gpu_memory=share).check()


def test_several_outputs_are_no_score(tmp_path: Path) -> None:
    from mpo.score.pooling import load_pooling_model

    folder = saved(tmp_path, outputs=3)
    with pytest.raises(ConfigError, match="LlamaForSequenceClassification with 3 outputs"):
        load_pooling_model(str(folder), None, Precision.fp32, False, None, 64, 0.9)
