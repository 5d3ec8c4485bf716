"""A model and trainings whose memory tests compute by hand."""

from __future__ import annotations

from mpo.config.training import Precision, TrainConfig
from mpo.planning.sizes import read_architecture

LLAMA3_8B = read_architecture(
    {
        "model_type": "llama",
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "vocab_size": 128256,
        "tie_word_embeddings": False,
    }
)
P = 8_030_261_248
WEIGHTS_GRADIENT = 128256 * 4096 * 2 + 32064 * 4096 * (4 + 2)
"""Of the head in bfloat16, and of a fourth of its entries its sum in float32 and what is added to that."""
COPIED_GRADIENT = 128256 * 4096 * (2 + 4)
"""Of the head in bfloat16, and DeepSpeed's copy in float32."""
EVERY_LAYER = 4 * 4096 + 2 * 32 * 128 + 2 * 8 * 128 + 2 * 14336
"""What a layer keeps of a token: inputs and outputs of its norms, q, its output, k, v, gate, up."""


BACKWARDS = 4096 + 3 * 14336
"""What it adds while it goes backwards."""
PAPER = TrainConfig()
TESTBED = TrainConfig(precision=Precision.fp32, zero_stage=0, activation_checkpointing=False)
