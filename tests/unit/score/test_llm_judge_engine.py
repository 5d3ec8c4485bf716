"""A judge that vLLM loads in this process: the same question on its chat template, its log-probs, what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from mpo.config.targets import build
from mpo.errors import ConfigError
from mpo.score import Scorer
from mpo.score.llm_judge_pairwise import LLMJudgePairwise
from mpo.score.verdicts import LETTERS, NoVerdict, Verdict
from tests.unit.score import tiny
from tests.unit.score.judging import QUESTION, item, options

BIAS = {"A": 3.0, "B": 1.0, "C": 0.0}


def saved(folder: Path) -> Path:
    """A tiny Llama whose weights ignore what it reads: it says A, B or C by fixed probabilities."""
    made = tiny.tokenizer(folder)
    torch.manual_seed(0)
    sizes = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 2}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=320, max_position_embeddings=2048, **sizes))
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name.endswith(("o_proj.weight", "down_proj.weight")):
                weight.zero_()  # the last hidden state is the embedding of the last token alone
        model.model.embed_tokens.weight.fill_(1.0)
        model.lm_head.weight.fill_(-30 / 64)
        for letter, value in BIAS.items():
            model.lm_head.weight[made.convert_tokens_to_ids(letter)] = value / 64
    model.save_pretrained(folder)
    return folder


def node(folder: Path, **others: Any) -> dict[str, Any]:
    loaded = {"path": str(folder), "precision": "fp32", "context_tokens": 2048, "max_answer_tokens": 1}
    return {**options("llm_judge_pairwise"), "urls": [], "model": None, **loaded, **others}


def judge(folder: Path, **others: Any) -> LLMJudgePairwise:
    built = build(node(folder, **others), Scorer, (), "score")  # type: ignore[type-abstract]
    assert isinstance(built, LLMJudgePairwise)
    return built


@pytest.mark.slow
def test_it_answers_with_its_log_probs_and_refuses_what_is_too_long(tmp_path: Path) -> None:
    pytest.importorskip("vllm", reason="vLLM is not installed (make install-vllm)")
    made = judge(saved(tmp_path))
    made.check()
    questions = [made.question(item("a"), "a", "b"), made.question(item("a"), "a" * 2000, "b")]
    found = dict(made.verdicts_on(questions, LETTERS, "A, B or C", True))
    assert made.score([item("a"), item("b")]) == pytest.approx([0.5, 0.5])
    made.close()
    odds = torch.tensor(list(BIAS.values())).softmax(0).tolist()
    verdict, refused = found[0], found[1]
    assert isinstance(verdict, Verdict) and verdict.value == pytest.approx(odds[0] + odds[2] / 2, abs=1e-5)
    assert verdict.mass == pytest.approx(1.0, abs=1e-5)
    assert isinstance(refused, NoVerdict) and "tokens leaves no room for an answer of 1" in str(refused.error)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"urls": ["http://localhost:8000/v1"]}, "score.urls: a judge of a path is loaded, not served; leave it out"),
        ({"model": "judge"}, "score.model: a judge of a path is loaded, not served"),
        ({"context_tokens": 1}, "score.context_tokens: 1 is too few; give at least 2"),
        ({"tensor_parallel": 0}, "score.tensor_parallel: 0 is too few"),
        ({"gpu_memory": 1.5}, "score.gpu_memory: 1.5 is out of range"),
        ({"path": None}, "score.urls: has no value; give addresses: 'score.urls=[http://localhost:8000/v1]', or the"),
    ],
)
def test_wrong_options_are_one_line(tmp_path: Path, wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        judge(tmp_path, **wrong)
    assert str(caught.value).startswith(said)


def test_what_cannot_be_loaded_is_said_before_anything_is_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("vllm", reason="vLLM is not installed (make install-vllm)")
    with pytest.raises(ConfigError, match=r"score\.path: .*config\.json"):
        judge(tmp_path).check()
    LlamaConfig(max_position_embeddings=64).save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(ConfigError, match=r"score\.context_tokens: 2048 is beyond the judge's 64 positions"):
        judge(tmp_path).check()
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"score\.path: vLLM is not installed; make install-vllm, or take score.urls"):
        judge(tmp_path).check()


def test_other_weights_or_another_wording_are_another_judge(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"a")
    first = judge(tmp_path)
    asked = first.asked_as
    assert asked == judge(tmp_path, gpu_memory=0.5, name="other").asked_as
    assert asked != judge(tmp_path, max_answer_tokens=9).asked_as
    (tmp_path / "model.safetensors").write_bytes(b"ab")
    assert asked != judge(tmp_path).asked_as
    assert first.prompt_version != judge(tmp_path, criteria="- It is short.").prompt_version
    assert first.prompt_version == judge(tmp_path, max_answer_tokens=9).prompt_version
    assert first.question(item("a"), "x", "y") != first.question(item("a"), "y", "x") and QUESTION[0].content in (
        first.question(item("a"), "x", "y")
    )
