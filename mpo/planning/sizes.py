"""Parameters of a model, from its architecture."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mpo.config.schema import ModelConfig
from mpo.config.training import LoraConfig
from mpo.config.wording import hint
from mpo.errors import ConfigError

GATED = ("llama", "mistral", "qwen2", "qwen3", "qwen3_moe", "gemma", "gemma3_text", "phi3", "olmo2", "olmo3", "smollm3")
"""Model types with rotary positions, RMS norms and gated MLPs, for which the count is exact."""

DEFAULTS: dict[str, dict[str, Any]] = {
    "gemma": {"head_dim": 256, "tie_word_embeddings": True},
    "gemma3_text": {"num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 256, "vocab_size": 262208,
                    "tie_word_embeddings": True},
    "smollm3": {"tie_word_embeddings": True},
}  # fmt: skip
"""Values of transformers' config classes, which published ``config.json`` leave out."""

FUSED = ("phi3",)
"""Those of them with one linear map for q, k and v, and one for gate and up."""

FOUR_NORMS = ("gemma3_text",)
"""Those with norms behind attention and MLP as well as before them."""

HEADS_NORMED, WIDTHS_NORMED = ("qwen3", "qwen3_moe", "gemma3_text"), ("olmo2", "olmo3")
"""Those that norm q and k, head by head with the same weights, or whole."""

EXPERTS = ("qwen3_moe",)
"""Those with experts in every layer."""

PLAIN_NORMS, PLAIN_MLP = ("gemma", "gemma3_text", "olmo2", "olmo3"), ("gemma", "gemma3_text", "phi3", *EXPERTS)
"""Those whose norms, and whose MLPs, are not of Llama's kind, so that mpo.policy.layers leaves them to autograd."""

PLAIN_NORM_BYTES = 10
"""Of a number that such a norm takes, in float32 as in bfloat16: seen on a CPU, 9 to 12."""


@dataclass(frozen=True)
class Architecture:
    """Shape of a Llama-like decoder: what the size formulas read of transformers' config values.

    With ``experts`` in each layer, of which a token goes to ``chosen``, ``intermediate`` is the width of one.
    """

    hidden: int
    intermediate: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    vocab: int
    tied: bool
    qkv_bias: bool
    fused: bool = False  # q, k and v are one linear map, and so are gate and up
    norms: int = 2  # of the hidden width
    qk_norms: int = 0  # weights of q's and k's; 0: there are none
    plain_norms: bool = False  # keep float32 copies, as autograd has it
    plain_mlp: bool = False  # keeps the gate's activation and the product too
    experts: int = 0
    chosen: int = 0

    @property
    def embedding(self) -> int:
        """Parameters of one embedding or head matrix."""
        return self.vocab * self.hidden

    @property
    def layer(self) -> int:
        """Parameters of one layer: what is in products, and norms."""
        return self.matrices + self.norms * self.hidden + self.qk_norms

    @property
    def matrices(self) -> int:
        """Parameters of one layer's products: linear maps, biases of q, k, v (Qwen2), experts and their router."""
        return self._matrices(self.experts)

    @property
    def used_matrices(self) -> int:
        """Those that one token is multiplied with."""
        return self._matrices(self.chosen)

    def _matrices(self, experts: int) -> int:
        bias = (self.heads + 2 * self.kv_heads) * self.head_dim if self.qkv_bias else 0
        router = self.hidden * self.experts
        return self.maps + bias + experts * 3 * self.hidden * self.intermediate + router

    @property
    def maps(self) -> int:
        """Parameters of a layer's linear maps, without biases: q, k, v, o, and three of an MLP that is not of experts,
        which transformers has as one tensor a kind."""
        query, key_value = self.heads * self.head_dim, self.kv_heads * self.head_dim
        return self.hidden * (2 * query + 2 * key_value + (0 if self.experts else 3 * self.intermediate))

    @property
    def largest_map(self) -> int:
        """Parameters of the largest of them."""
        query, key_value = self.heads * self.head_dim, self.kv_heads * self.head_dim
        first, gate = (query + 2 * key_value, 2 * self.intermediate) if self.fused else (query, self.intermediate)
        return self.hidden * max(first, 0 if self.experts else gate)

    @property
    def largest_tensor(self) -> int:
        """Parameters of a layer's largest tensor: the largest map, or gate and up of all experts."""
        return max(self.largest_map, self.experts * 2 * self.intermediate * self.hidden)

    @property
    def normed(self) -> int:
        """Numbers of a token that the norms of one layer take."""
        query, key_value = self.heads * self.head_dim, self.kv_heads * self.head_dim
        return self.norms * self.hidden + (query + key_value if self.qk_norms else 0)

    @property
    def mlp(self) -> int:
        """Numbers of a token that the MLP makes on its way: gate, up and their product; of each expert that the token
        goes to these, input and output."""
        one = 3 * self.intermediate
        return self.chosen * (one + 2 * self.hidden) if self.experts else one

    @property
    def unnormed(self) -> int:
        """Numbers that one layer makes of a token beside its norms' and needs in its backward pass: q, k and v as
        attention takes them, its output, and the MLP's (and the gate's activation)."""
        query, key_value = self.heads * self.head_dim, self.kv_heads * self.head_dim
        activated = (self.chosen if self.experts else 1) * self.intermediate if self.plain_mlp else 0
        return 2 * query + 2 * key_value + self.mlp + activated

    @property
    def activations(self) -> int:
        """All of these, with inputs and outputs of norms (4 D for two of the hidden width)."""
        return 2 * self.normed + self.unnormed

    def kept_bytes(self, width: int) -> int:
        """Bytes of a token that one layer keeps for its backward pass, ``width`` bytes an element; where the MLP is of
        Llama's kind its product is computed again (mpo.policy.layers)."""
        unnormed = self.unnormed - (0 if self.plain_mlp else self.intermediate)
        return self.normed * (PLAIN_NORM_BYTES if self.plain_norms else 2 * width) + unnormed * width

    def recomputed(self, every: int) -> int:
        """Layers that are computed again where every ``every``-th one is, the first included; none where that is 0."""
        return -(-self.layers // every) if every else 0

    @property
    def parameters(self) -> int:
        """All parameters: embedding (and an untied head), layers, final norm."""
        return (1 if self.tied else 2) * self.embedding + self.layers * self.layer + self.hidden


def read_architecture(values: Mapping[str, Any]) -> Architecture:
    """The architecture that transformers' config ``values`` describe.

    Raises:
        ConfigError: a value is missing, or the model type has another structure.
    """
    model_type = values.get("model_type", "llama")
    values = {**DEFAULTS.get(model_type, {}), **values}
    if model_type not in GATED:
        raise ConfigError(f"the size of '{model_type}' is not known here", "model.architecture.model_type",
                          "give model.parameters")  # fmt: skip
    try:
        hidden, heads = int(values["hidden_size"]), int(values["num_attention_heads"])
        kv_heads = int(values.get("num_key_value_heads") or heads)
        head_dim = int(values.get("head_dim") or hidden // heads)
        qk_norms = {**dict.fromkeys(HEADS_NORMED, 2), **dict.fromkeys(WIDTHS_NORMED, heads + kv_heads)}
        number = values.get("num_local_experts") or values.get("num_experts")  # as newer transformers save it
        experts = int(number or values["num_experts"]) if model_type in EXPERTS else 0
        return Architecture(
            hidden=hidden,
            intermediate=int(values["moe_intermediate_size" if experts else "intermediate_size"]),
            layers=int(values["num_hidden_layers"]),
            heads=heads,
            kv_heads=kv_heads,
            head_dim=head_dim,
            vocab=int(values["vocab_size"]),
            tied=bool(values.get("tie_word_embeddings", False)),
            qkv_bias=model_type == "qwen2" or bool(values.get("attention_bias", False)),
            fused=model_type in FUSED,
            norms=4 if model_type in FOUR_NORMS else 2,
            qk_norms=qk_norms.get(model_type, 0) * head_dim,
            plain_norms=model_type in PLAIN_NORMS,
            plain_mlp=model_type in PLAIN_MLP,
            experts=experts,
            chosen=int(values["num_experts_per_tok"]) if experts else 0,
        )
    except KeyError as error:
        key = str(error.args[0])
        raise ConfigError("has no value", f"model.architecture.{key}", "give one") from error


def known_architecture(model: ModelConfig) -> Architecture | None:
    """The policy's, where the config has it and the model type is one of :data:`GATED`."""
    values = model.architecture
    if not values or values.get("model_type", "llama") not in GATED:
        return None
    if values.get("mlp_only_layers") or values.get("decoder_sparse_step", 1) != 1:  # experts in some layers alone
        return None
    return read_architecture(values)


def parameters(model: ModelConfig) -> int | None:
    """Parameters of the policy: as the config states them, else by its architecture; None where neither is known."""
    if model.parameters is not None:
        return model.parameters
    shape = known_architecture(model)
    return None if shape is None else shape.parameters


def adapter_parameters(shape: Architecture, lora: LoraConfig) -> int:
    """Trained parameters of rank-r adapters on the chosen linear maps of each layer: r · (inputs + outputs) each.

    Raises:
        ConfigError: a target that is none of them.
    """
    query, key_value = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    if shape.fused:
        sides = {"qkv_proj": query + 2 * key_value, "gate_up_proj": 2 * shape.intermediate}
    else:
        sides = {"q_proj": query, "k_proj": key_value, "v_proj": key_value}
        sides |= {"gate_proj": shape.intermediate, "up_proj": shape.intermediate}
    sides |= {"o_proj": query, "down_proj": shape.intermediate}
    experts = 0
    if shape.experts:  # no linear maps, one tensor a kind, which peft adapts with the router where nothing is chosen
        sides = {name: side for name, side in sides.items() if name[0] in "qkvo"}
        gate_up, down = 2 * (shape.hidden + 2 * shape.intermediate), shape.intermediate + shape.hidden
        experts = 0 if lora.target_modules else shape.experts * (gate_up + down + 1) + shape.hidden
    chosen = [target.rpartition(".")[2] for target in lora.target_modules] or list(sides)
    for name in chosen:
        if name not in sides:
            raise ConfigError(f"no layer has a linear map '{name}'", "train.lora.target_modules", hint(name, sides))
    return shape.layers * lora.rank * (experts + sum(shape.hidden + sides[name] for name in chosen))
