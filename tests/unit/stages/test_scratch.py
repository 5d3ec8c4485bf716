"""What transformers refuses of an architecture is told before anything is built."""

from __future__ import annotations

from typing import Any

import pytest

from mpo.config.files import is_shipped
from mpo.errors import ConfigError
from mpo.stages.scratch import check_architecture

TINY: dict[str, Any] = {
    **{"model_type": "llama", "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "vocab_size": 111},
    **{"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 256},
}
REFUSED = {
    "initializer_range": ("abc", "initializer_range"),
    "hidden_act": ("nosuch", "nosuch"),
    "rms_norm_eps": (None, "rms_norm_eps"),
    "mlp_bias": ("no", "mlp_bias"),
    "layer_types": (["a"], "layer_types"),
    "head_dim": (3, "cannot make a llama"),
    "rope_theta": ("x", "cannot make a llama"),
    "id2label": (5, "cannot make a llama"),
    "model_type": ("lama", "did you mean 'llama'"),
    "hidden_sizee": (64, "did you mean 'hidden_size'"),
    "d_model": (64, "leave it out"),
    "pad_token_id": (0, "is the tokenizer's"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_value_that_is_refused_is_one_line(name: str) -> None:
    value, explained = REFUSED[name]
    with pytest.raises(ConfigError) as caught:
        check_architecture({**TINY, name: value})
    assert caught.value.where.startswith("model.architecture") and explained in str(caught.value)


@pytest.mark.parametrize("changed", [{}, {"rope_theta": 5000.0}, {"model_type": "qwen2"}, {"head_dim": 32}])
def test_what_can_be_made_passes(changed: dict[str, Any]) -> None:
    check_architecture({**TINY, **changed})
    assert not is_shipped({**TINY, **changed})
