"""A model folder that lacks weights, has others or was cut is refused by name; harmless ones are not."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, GPTNeoConfig, LlamaConfig, Qwen2Config

from mpo.config.training import Precision
from mpo.errors import UserError
from mpo.policy.pretrained import load_model

SIZE = {"vocab_size": 40, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
Weights = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    AutoModelForCausalLM.from_config(LlamaConfig(**SIZE)).save_pretrained(folder)
    return folder


def load(folder: Path) -> None:
    load_model(str(folder), None, Precision.fp32, False)


def changed(model: Path, out: Path, change: Callable[[Weights], object]) -> Path:
    shutil.copytree(model, out)
    weights = load_file(out / "model.safetensors")
    change(weights)
    save_file(weights, out / "model.safetensors", metadata={"format": "pt"})
    return out


def without_layer(weights: Weights) -> None:
    for name in [name for name in weights if ".layers.1." in name]:
        del weights[name]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without_layer, r"lacks weights model\.layers\.1\.input_layernorm\.weight, .* and 6 more; give a folder"),
        (lambda weights: weights.pop("lm_head.weight"), r"lacks the weight lm_head\.weight; give"),
        (
            lambda weights: weights.update({"v_head.weight": torch.zeros(1, 16)}),
            r"has the weight v_head\.weight, which its class does not use; give",
        ),
        (
            lambda weights: weights.update({"model.norm.weight": torch.zeros(8)}),
            r"has model\.norm\.weight of shape \[8\], but its config\.json means \[16\]; give",
        ),
    ],
)
def test_weights_that_do_not_fit_are_named(
    model: Path, tmp_path: Path, change: Callable[[Weights], object], message: str
) -> None:
    with pytest.raises(UserError, match=message) as raised:
        load(changed(model, tmp_path / "model", change))
    assert len(str(raised.value)) < 400


def test_what_its_class_declares_harmless_is_no_mistake(model: Path, tmp_path: Path) -> None:
    buffer = {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.zeros(4)}  # as older versions saved it
    load(changed(model, tmp_path / "buffer", lambda weights: weights.update(buffer)))
    tied = AutoModelForCausalLM.from_config(Qwen2Config(**SIZE, tie_word_embeddings=True))
    tied.save_pretrained(tmp_path / "tied")
    assert "lm_head.weight" not in load_file(tmp_path / "tied" / "model.safetensors")
    load(tmp_path / "tied")


def test_buffers_of_older_versions_are_no_weights(tmp_path: Path) -> None:
    size = {"vocab_size": 40, "hidden_size": 16, "num_layers": 2, "num_heads": 2, "max_position_embeddings": 32}
    neo = GPTNeoConfig(**size, intermediate_size=24, attention_types=[[["global", "local"], 1]])
    AutoModelForCausalLM.from_config(neo).save_pretrained(tmp_path / "model")
    mask = {"transformer.h.0.attn.attention.bias": torch.ones(1, 1, 32, 32, dtype=torch.bool)}
    constant = {"transformer.h.0.attn.attention.masked_bias": torch.tensor(-1e9)}
    load(changed(tmp_path / "model", tmp_path / "old", lambda weights: weights.update(mask | constant)))
    with pytest.raises(UserError, match=r"has the weight transformer\.h\.7\.ln_1\.weight, which its class"):
        more = {"transformer.h.7.ln_1.weight": torch.ones(16)}
        load(changed(tmp_path / "model", tmp_path / "more", lambda weights: weights.update(more)))


@pytest.mark.parametrize("kept", [0, 5, 50, 5000, -1])
def test_a_cut_file_is_named(model: Path, tmp_path: Path, kept: int) -> None:
    shutil.copytree(model, tmp_path / "cut")
    file = tmp_path / "cut" / "model.safetensors"
    file.write_bytes(file.read_bytes()[:kept])
    with pytest.raises(
        UserError, match=r"model\.safetensors: not a whole safetensors file: .*; copy or save the model"
    ):
        load(tmp_path / "cut")


def test_a_shard_that_the_index_names_has_to_be_there(model: Path, tmp_path: Path) -> None:
    AutoModelForCausalLM.from_pretrained(model).save_pretrained(tmp_path, max_shard_size="5KB")
    shards = sorted(tmp_path.glob("model-*.safetensors"))
    assert len(shards) > 1
    load(tmp_path)
    shards[1].unlink()
    with pytest.raises(UserError, match=rf"index\.json names {shards[1].name}, which is missing; copy or save"):
        load(tmp_path)
    for content in ("{", "[]", json.dumps({"weight_map": 3})):
        (tmp_path / "model.safetensors.index.json").write_text(content)
        with pytest.raises(UserError, match=r"index\.json: not an index of weights; copy or save"):
            load(tmp_path)


def test_an_index_beside_all_weights_in_one_file_is_not_read(model: Path, tmp_path: Path) -> None:
    shutil.copytree(model, tmp_path / "model")
    index = {"metadata": {}, "weight_map": {"lm_head.weight": "model-00001-of-00002.safetensors"}}
    (tmp_path / "model" / "model.safetensors.index.json").write_text(json.dumps(index))
    load(tmp_path / "model")


def test_a_link_that_leads_nowhere_is_named(model: Path, tmp_path: Path) -> None:
    shutil.copytree(model, tmp_path / "model")
    (tmp_path / "model" / "model.safetensors").unlink()
    (tmp_path / "model" / "model.safetensors").symlink_to(tmp_path / "blobs" / "0123")
    with pytest.raises(UserError, match=r"model\.safetensors: a link to a file that is missing; copy or save"):
        load(tmp_path / "model")


@pytest.fixture
def quantised(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An fp8 model, beside what transformers takes for a card that computes with fp8."""
    folder = changed(model, tmp_path / "fp8", quantise)
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "fp8", "activation_scheme": "dynamic"}
    (folder / "config.json").write_text(json.dumps(config))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda *_: (9, 0))
    return folder


def quantise(weights: Weights) -> None:
    for name in [name for name in weights if "proj" in name]:
        scale = weights[name].abs().max() / 448
        weights |= {name: (weights[name] / scale).to(torch.float8_e4m3fn), f"{name}_scale_inv": scale.reshape(1, 1)}


def test_what_transformers_can_widen_is_widened_beside_a_card_too(model: Path, quantised: Path) -> None:
    lm = load_model(str(quantised), None, Precision.bf16, False)
    assert {parameter.dtype for parameter in lm.parameters()} == {torch.bfloat16}
    assert not hasattr(lm.config, "quantization_config")  # nor would it be exported
    whole = load_model(str(model), None, Precision.fp32, False).state_dict()
    for name, value in lm.state_dict().items():
        assert torch.allclose(value.float(), whole[name], rtol=0.1, atol=1e-3), name


def test_weights_that_stay_quantised_are_refused(quantised: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mpo.policy.pretrained.widen_when_read", lambda config: None)
    with pytest.raises(UserError, match=r"its weights are quantised \(fp8\); give the model before it was quantised"):
        load(quantised)
