"""The known prompt of a policy: the first one, with the log-probs that transformers gives its tokens."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer, LlamaForCausalLM

from mpo.cache.stage import File, Nothing
from mpo.config.training import Precision
from mpo.data.chat import render_prompt
from mpo.sample.canary import MOST_TOKENS, Canary
from mpo.stages import canary
from mpo.stages.context import StageContext
from mpo.stages.nodes import canary as node
from mpo.types import Message
from tests.unit.stages.test_sample import prepared


def known(tmp_path: Path, *texts: str) -> Canary:
    prompts, policy = prepared(tmp_path, list(texts))
    out = tmp_path / "out"
    out.mkdir()
    config, inputs = node.Config(Precision.fp32, None, False), node.Inputs(prompts, File(str(policy)))
    canary.run(StageContext("canary", config, Nothing(), inputs, out))
    return Canary.read(out)


def test_it_holds_the_first_prompt_and_the_policys_log_probs(tmp_path: Path) -> None:
    found = known(tmp_path, "write garden", "rose")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "policy")
    ids = render_prompt(tokenizer, (Message("user", "write garden"),))
    with torch.no_grad():
        logps_TV = LlamaForCausalLM.from_pretrained(tmp_path / "policy")(torch.tensor([ids])).logits[0].log_softmax(-1)
    assert list(found.token_ids) == ids
    expected = [float(logps_TV[place, index]) for place, index in enumerate(ids[1:])]
    assert found.token_logps == pytest.approx(expected, abs=1e-5)


def test_of_a_long_prompt_it_takes_the_beginning(tmp_path: Path) -> None:
    assert len(known(tmp_path, "garden " * 100).token_ids) == MOST_TOKENS
