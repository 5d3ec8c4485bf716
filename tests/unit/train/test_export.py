"""What would keep a trained policy from being written is found out before it is trained."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, GenerationConfig

from mpo.config.training import LoraConfig
from mpo.data.tokenizer import load_tokenizer
from mpo.errors import UserError
from mpo.policy.load import load_policy
from mpo.testbed.tokenizer import build_tokenizer
from mpo.train.export import export_adapter, export_policy, rehearse_export
from tests.distributed.world import tiny_policy


def test_a_rehearsal_leaves_nothing(tmp_path: Path) -> None:
    build_tokenizer(tmp_path / "tokenizer")
    tokenizer = load_tokenizer(str(tmp_path / "tokenizer"))
    assert rehearse_export(tiny_policy(), tmp_path / "policy", tokenizer, [2]) is None
    assert [path.name for path in tmp_path.iterdir()] == ["tokenizer"]


def test_sampling_flags_without_effect_are_exported_as_they_are(tmp_path: Path) -> None:
    policy = tiny_policy()
    policy.base.generation_config = GenerationConfig(temperature=0.9, top_p=0.6, eos_token_id=7)
    odd = rehearse_export(policy, tmp_path / "policy", None, [2])
    assert odd is not None and "`do_sample` is not set to `True`" in odd
    export_policy(policy, tmp_path / "policy", stop_token_ids=[2])
    found = json.loads((tmp_path / "policy" / "generation_config.json").read_text())
    assert (found["temperature"], found["top_p"], found["eos_token_id"]) == (0.9, 0.6, [2])


def test_a_tokenizer_that_cannot_be_saved_is_told_before_training(tmp_path: Path) -> None:
    build_tokenizer(tmp_path / "tokenizer")
    tokenizer = load_tokenizer(str(tmp_path / "tokenizer"))
    tokenizer.init_kwargs["odd"] = object()  # no JSON holds it
    with pytest.raises(UserError, match="the trained policy could not be saved: .*; correct this in the model's"):
        rehearse_export(tiny_policy(), tmp_path / "policy", tokenizer, [2])
    assert [path.name for path in tmp_path.iterdir()] == ["tokenizer"]


def test_adapters_by_themselves_are_what_peft_loads(tmp_path: Path) -> None:
    tiny_policy().base.save_pretrained(tmp_path / "base")
    policy = load_policy(str(tmp_path / "base"), lora=LoraConfig(rank=4, alpha=8.0)).eval()
    for parameter in policy.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter)
    export_adapter(policy, tmp_path / "adapter")
    export_policy(policy, tmp_path / "policy")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["adapter", "base", "policy"]
    config = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert (config["r"], config["base_model_name_or_path"]) == (4, str(tmp_path / "base"))
    base = AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    ids_1N = torch.arange(3, 20)[None]
    with torch.no_grad():
        found = PeftModel.from_pretrained(base, str(tmp_path / "adapter")).eval()(ids_1N).logits
        expected = policy.lm(ids_1N).logits
        merged = AutoModelForCausalLM.from_pretrained(tmp_path / "policy").eval()(ids_1N).logits
    assert torch.equal(found, expected)
    torch.testing.assert_close(merged, expected, rtol=1e-3, atol=1e-3)


def test_without_adapters_there_is_no_folder_for_them(tmp_path: Path) -> None:
    export_adapter(tiny_policy(), tmp_path / "adapter")
    assert not list(tmp_path.iterdir())
