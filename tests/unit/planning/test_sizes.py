"""Parameter counts against published ones and those of real models."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from transformers import AutoConfig, AutoModelForCausalLM

from mpo.config.files import with_own_shape
from mpo.config.paths import folder
from mpo.config.schema import DataConfig, ModelConfig, RunConfig
from mpo.config.training import LoraConfig
from mpo.errors import ConfigError
from mpo.planning.sizes import DEFAULTS, GATED, adapter_parameters, known_architecture, parameters, read_architecture

PUBLISHED = Path(__file__).parents[3] / "../shared/spec/models.yaml"
TINY = {
    "hidden_size": 64,
    "intermediate_size": 176,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 111,
}
EXPERTS = {"num_experts": 6, "num_experts_per_tok": 2, "moe_intermediate_size": 48}


def model_files() -> dict[str, dict[str, object]]:
    read = {path.stem: yaml.safe_load(path.read_text()) for path in (folder("conf") / "model").glob("*.yaml")}
    contents = {name: content.get("model", content) for name, content in read.items()}  # tiny's is flat
    return {name: content for name, content in contents.items() if "architecture" in content}  # no mere other name


@pytest.mark.parametrize("name", sorted(model_files()))
def test_stated_parameters_follow_from_the_architecture(name: str) -> None:
    model = model_files()[name]
    count = read_architecture(model["architecture"]).parameters  # type: ignore[arg-type]
    assert count == model.get("parameters", count) and count > 0


@pytest.mark.parametrize("name", sorted(model_files()))
def test_an_architecture_is_one_that_transformers_makes(name: str) -> None:
    values = model_files()[name]["architecture"]
    assert of_transformers(values) == read_architecture(values).parameters  # type: ignore[arg-type]


GEMMA4 = {"vocab_size": 262144, "head_dim": 256, "global_head_dim": 512}
QWEN35 = {"vocab_size": 248320, "head_dim": 256, "tie_word_embeddings": True, "linear_num_key_heads": 16,
          "linear_key_head_dim": 128, "linear_value_head_dim": 128}  # fmt: skip
UNPLANNED: dict[str, dict[str, object]] = {
    "qwen3_5_0_8b": {
        "hidden_size": 1024, "intermediate_size": 3584, "num_hidden_layers": 24, "num_attention_heads": 8,
        "num_key_value_heads": 2, "linear_num_value_heads": 16, "model_type": "qwen3_5_text", **QWEN35,
    },
    "qwen3_5_4b": {
        "hidden_size": 2560, "intermediate_size": 9216, "num_hidden_layers": 32, "num_attention_heads": 16,
        "num_key_value_heads": 4, "linear_num_value_heads": 32, "model_type": "qwen3_5_text", **QWEN35,
    },
    "gemma4_e2b_it": {
        "hidden_size": 1536, "intermediate_size": 6144, "num_hidden_layers": 35, "num_attention_heads": 8,
        "num_key_value_heads": 1, "hidden_size_per_layer_input": 256, "num_kv_shared_layers": 20,
        "use_double_wide_mlp": True, "layer_types": [*4 * ["sliding_attention"], "full_attention"] * 7,
        "model_type": "gemma4_text", **GEMMA4,
    },
    "gemma4_e4b_it": {
        "hidden_size": 2560, "intermediate_size": 10240, "num_hidden_layers": 42, "num_attention_heads": 8,
        "num_key_value_heads": 2, "hidden_size_per_layer_input": 256, "num_kv_shared_layers": 18,
        "model_type": "gemma4_text", **GEMMA4,
    },
    "gemma4_12b_it": {
        "hidden_size": 3840, "intermediate_size": 15360, "num_hidden_layers": 48, "num_attention_heads": 16,
        "num_key_value_heads": 8, "num_global_key_value_heads": 1, "attention_k_eq_v": True,
        "model_type": "gemma4_unified_text", **GEMMA4,
    },
    "gemma4_26b_a4b_it": {
        "hidden_size": 2816, "intermediate_size": 2112, "num_hidden_layers": 30, "num_attention_heads": 16,
        "num_key_value_heads": 8, "num_global_key_value_heads": 2, "attention_k_eq_v": True,
        "hidden_size_per_layer_input": 0, "enable_moe_block": True, "num_experts": 128, "top_k_experts": 8,
        "moe_intermediate_size": 704, "model_type": "gemma4_text", **GEMMA4,
    },
    "gemma4_31b_it": {
        "hidden_size": 5376, "intermediate_size": 21504, "num_hidden_layers": 60, "num_attention_heads": 32,
        "num_key_value_heads": 16, "num_global_key_value_heads": 4, "attention_k_eq_v": True,
        "hidden_size_per_layer_input": 0, "model_type": "gemma4_text", **GEMMA4,
    },
}  # fmt: skip
"""Text parts of published models that the formulas do not know, whose files state parameters alone."""


def of_transformers(values: Mapping[str, Any]) -> int:
    """Parameters of the model that transformers makes, which takes no memory."""
    with torch.device("meta"):
        lm = AutoModelForCausalLM.from_config(AutoConfig.for_model(**values))
    return sum(parameter.numel() for parameter in lm.parameters())


@pytest.mark.parametrize("name", UNPLANNED)
def test_stated_parameters_are_those_of_the_text_part(name: str) -> None:
    content = yaml.safe_load((folder("conf") / f"model/{name}.yaml").read_text())["model"]
    assert "architecture" not in content and content["parameters"] == of_transformers(UNPLANNED[name])


def test_every_model_file_says_how_large_its_model_is() -> None:
    read = {path.stem: yaml.safe_load(path.read_text()) for path in (folder("conf") / "model").glob("*.yaml")}
    assert {name for name, content in read.items() if "model" in content} - set(model_files()) == set(UNPLANNED)


def test_sizes_of_the_models_from_scratch() -> None:
    assert read_architecture(model_files()["tiny"]["architecture"]).parameters == 416_256  # type: ignore[arg-type]
    assert 2.5e6 < read_architecture(model_files()["small"]["architecture"]).parameters < 2.7e6  # type: ignore[arg-type]


def test_published_counts() -> None:
    if not PUBLISHED.exists():
        pytest.skip("the published model table is not here")
    table = yaml.safe_load(PUBLISHED.read_text())["models"]
    names = {"layers": "num_hidden_layers", "heads": "num_attention_heads", "kv_heads": "num_key_value_heads"}
    names |= {"tied": "tie_word_embeddings", "max_positions": "max_position_embeddings"}
    for path, values in table.items():
        shape = read_architecture({names.get(key, key): value for key, value in values.items()})
        assert shape.parameters == values["params"], path
    ours = {model["path"]: model for model in model_files().values() if model.get("path") in table}
    assert len(ours) == len(table)
    for path, model in ours.items():
        assert model["parameters"] == table[path]["params"]
        for theirs, key in (*names.items(), ("hidden_size", "hidden_size"), ("vocab_size", "vocab_size")):
            assert model["architecture"][key] == table[path][theirs]  # type: ignore[index]


@pytest.mark.parametrize("model_type", GATED)
@pytest.mark.parametrize("tied", [True, False])
def test_count_is_that_of_the_real_model(model_type: str, tied: bool) -> None:
    values = {**TINY, **EXPERTS, "model_type": model_type, "tie_word_embeddings": tied, "head_dim": 16}
    values["pad_token_id"] = None
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**values))
    assert read_architecture(values).parameters == sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize("model_type", GATED)
def test_a_folders_config_says_as_much_as_the_model_has(model_type: str, tmp_path: Path) -> None:
    """As transformers saves it, which has names of its own for some values."""
    values = {**TINY, **EXPERTS, "model_type": model_type, "head_dim": 16, "pad_token_id": None}
    AutoConfig.for_model(**values).save_pretrained(tmp_path)
    config = RunConfig(data=DataConfig(source="testbed"), model=ModelConfig(path=str(tmp_path)))
    shape = known_architecture(with_own_shape(config).model)
    assert shape is not None and shape.parameters == of_transformers(values)


@pytest.mark.parametrize(
    "model_type, modules",
    [
        ("llama", []),
        ("llama", ["q_proj", "v_proj"]),
        ("llama", ["self_attn.q_proj"]),
        ("phi3", ["qkv_proj", "gate_up_proj"]),
        ("phi3", []),
        ("qwen3_moe", []),
        ("qwen3_moe", ["q_proj"]),
    ],
)
def test_adapter_count_is_that_of_peft(model_type: str, modules: list[str]) -> None:
    from peft import LoraConfig as PeftConfig
    from peft import get_peft_model

    values = {**TINY, **EXPERTS, "model_type": model_type, "tie_word_embeddings": True, "pad_token_id": None}
    values["head_dim"] = 16
    lora = LoraConfig(target_modules=modules)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**values))
    adapted = get_peft_model(
        model, PeftConfig(r=lora.rank, target_modules=modules or "all-linear", task_type="CAUSAL_LM")
    )
    trained = sum(parameter.numel() for parameter in adapted.parameters() if parameter.requires_grad)
    assert adapter_parameters(read_architecture(values), lora) == trained


@pytest.mark.parametrize(("model_type", "values"), DEFAULTS.items())
def test_what_published_configs_leave_out_is_as_transformers_has_it(model_type: str, values: dict[str, object]) -> None:
    config = AutoConfig.for_model(model_type)
    assert {name: getattr(config, name) for name in values} == values


def test_a_token_is_multiplied_with_the_experts_that_it_goes_to() -> None:
    shape = read_architecture({**TINY, **EXPERTS, "model_type": "qwen3_moe", "head_dim": 16})
    router, expert = 64 * 6, 3 * 64 * 48
    assert shape.matrices - shape.used_matrices == 4 * expert and shape.used_matrices > 2 * expert + router
    one = read_architecture({**TINY, "model_type": "qwen3", "head_dim": 16, "intermediate_size": 2 * 48})
    assert shape.used_matrices == one.used_matrices + router


def test_experts_in_some_layers_alone_are_not_known() -> None:
    values = {**TINY, **EXPERTS, "model_type": "qwen3_moe", "head_dim": 16}
    assert known_architecture(ModelConfig(architecture=values)) is not None
    assert known_architecture(ModelConfig(architecture={**values, "mlp_only_layers": [0]})) is None
    assert known_architecture(ModelConfig(architecture={**values, "decoder_sparse_step": 2})) is None


def test_an_adapter_on_what_is_not_there_is_refused() -> None:
    with pytest.raises(ConfigError, match="did you mean 'q_proj'"):
        adapter_parameters(read_architecture(TINY), LoraConfig(target_modules=["v_proj", "q_prj"]))


@pytest.mark.parametrize(("model_type", "module"), [("phi3", "q_proj"), ("llama", "qkv_proj")])
def test_a_map_that_the_family_has_fused_or_apart_is_refused(model_type: str, module: str) -> None:
    with pytest.raises(ConfigError, match="did you mean '.*_proj'"):
        adapter_parameters(read_architecture({**TINY, "model_type": model_type}), LoraConfig(target_modules=[module]))


def test_unknown_structures_are_not_guessed() -> None:
    assert parameters(ModelConfig(architecture={"model_type": "mamba"})) is None
    assert parameters(ModelConfig(architecture={"model_type": "mamba"}, parameters=7)) == 7
    assert parameters(ModelConfig()) is None
    with pytest.raises(ConfigError, match="model.architecture.model_type"):
        read_architecture({"model_type": "mamba"})
    with pytest.raises(ConfigError, match="model.architecture.vocab_size"):
        read_architecture({key: value for key, value in TINY.items() if key != "vocab_size"})
