"""Rewards during training: the policy as it is answers, as the sampler would have it, and nothing of it changes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from mpo.config.schema import SampleConfig, ThinkingConfig
from mpo.data.chat import stop_ids
from mpo.data.store import write_sets
from mpo.data.tokens import TokenizedSets, tokenize_sets
from mpo.layout.batch import collate
from mpo.policy.load import load_policy
from mpo.sample.base import Request, SamplingJob, draw_seed
from mpo.sample.hf import HFSampler
from mpo.stages.nodes.train import Rewards
from mpo.stages.rewards import SEED, heldout_rewards
from mpo.testbed.tokenizer import build_tokenizer
from mpo.types import Message, Response, ResponseSet

PROMPTS = ["write garden", "garden", "write river garden", "river"]
DECODING = SampleConfig(n=1, max_new_tokens=12)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """``policy``, ``sets`` with their messages, ``tokens`` of the same sets."""
    build_tokenizer(tmp_path / "policy")
    torch.manual_seed(0)
    shape = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    LlamaForCausalLM(LlamaConfig(vocab_size=111, **shape)).save_pretrained(tmp_path / "policy")
    sets = [
        ResponseSet(str(i), (Message("user", text),), (Response("river"), Response("garden")))
        for i, text in enumerate(PROMPTS)
    ]
    (tmp_path / "sets").mkdir()
    write_sets(tmp_path / "sets" / "heldout.parquet", sets)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "policy")
    limits = {"max_prompt_tokens": 50, "max_tokens": 80}
    tokenize_sets(sets, tokenizer, **limits, out=tmp_path / "tokens", processes=1, on_problem=lambda problem: None)
    return tmp_path


def words(prompt: str, response: str) -> float:
    """A scorer: how many words, and which prompt."""
    return len(response.split()) + PROMPTS.index(prompt) / 10


@pytest.mark.parametrize("checkpointed", [False, True])
def test_as_the_sampler_draws_and_with_nothing_changed(folder: Path, checkpointed: bool) -> None:
    tokenizer = AutoTokenizer.from_pretrained(folder / "policy")
    stops, sets = sorted(stop_ids(tokenizer)), TokenizedSets.load(folder / "tokens")
    policy = load_policy(str(folder / "policy"), activation_checkpointing=checkpointed).train()
    assert policy.shares_prefix
    batch = collate([sets[i] for i in range(len(sets))])
    before = policy(batch).logps_BK
    node = {"_target_": "mpo.score.function.FunctionScorer", "function": f"{__name__}.words"}
    how = Rewards(node, DECODING, ThinkingConfig())
    of_share = heldout_rewards(how, ["tests."], sets, folder / "sets", 3, policy, tokenizer, stops)
    total, count = of_share(0, 1)
    shares = [of_share(rank, 2) for rank in range(2)]
    assert (sum(each for each, _ in shares), [each for _, each in shares]) == (pytest.approx(total), [2, 1])
    assert policy.training and count == 3 and of_share(0, 1) == (total, count)
    assert policy.shares_prefix and torch.equal(policy(batch).logps_BK, before)

    requests = [Request(sets[i].prompt_ids.tolist(), [draw_seed(SEED, 0, "heldout", str(i), 0)]) for i in range(3)]
    job = SamplingJob(str(folder / "policy"), None, False, DECODING, tuple(stops), 50)
    with HFSampler().open(job) as draw:
        drawn = [tokenizer.decode(one.token_ids, skip_special_tokens=True) for (one,) in draw(requests)]
    assert total == pytest.approx(sum(words(PROMPTS[i], text) for i, text in enumerate(drawn)))
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.mul_(3.0)
    assert of_share(0, 1) != (total, count), "the weights are those of the moment"
