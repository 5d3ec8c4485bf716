"""A policy from a folder or hub name, ready to train or to score."""

from __future__ import annotations

from transformers import PreTrainedModel

from mpo.config.training import LoraConfig, Precision, Quantization
from mpo.errors import ConfigError
from mpo.policy.adapters import with_adapters
from mpo.policy.agreement import check_causal, check_policy, fitting_extras, plain_logps
from mpo.policy.head import LogitExtras
from mpo.policy.layers import compile_fused, save_only_inputs
from mpo.policy.model_class import is_composite
from mpo.policy.module import ModelSource, PolicyModule
from mpo.policy.pretrained import load_model
from mpo.policy.probe import probe
from mpo.policy.recomputation import recompute_layers, recomputed
from mpo.policy.shared_prefix import share_prefix
from mpo.policy.text_part import keep_text_part


def load_policy(
    path: str,
    revision: str | None = None,
    precision: Precision = Precision.fp32,
    trust_remote_code: bool = False,
    activation_checkpointing: int = 0,
    lora: LoraConfig | None = None,
    quantization: Quantization | None = None,
) -> PolicyModule:
    """Load a causal language model as a policy, without dropout or other noise, on the CPU.

    Of a model that reads images too, the text part alone is kept; :func:`mpo.train.export.export_policy` puts it back.

    Args:
        path: folder or hub name.
        revision: commit, tag or branch on the hub.
        precision: dtype of the weights.
        activation_checkpointing: every n-th layer is computed again in the backward pass; 0: none.
        lora: train adapters on a frozen model instead.
        quantization: of the frozen model.

    Raises:
        UserError: nothing loadable at ``path``.
        ConfigError: a family whose log-probs would not be its own (its logits are not head(hidden states) with a known
            factor or cap, or its tokens see later ones), or adapters that don't fit the model.
    """
    lm = load_model(path, revision, precision, trust_remote_code, quantization)
    tokens, rows = probe(lm.config), lm.config.get_text_config()._attn_implementation
    expected = plain_logps(lm, tokens)
    check_causal(lm, tokens, expected)
    extras = fitting_extras(lm)
    calls = share_prefix(lm)
    policy = make_policy(lm, activation_checkpointing, lora, extras=extras)
    check_policy(policy, tokens, expected, rows)
    if is_composite(lm.config):
        keep_text_part(policy)
    policy.own_attention, policy.attention_calls = rows, calls
    policy.source = ModelSource(path, revision, trust_remote_code)
    return policy


def make_policy(
    lm: PreTrainedModel,
    activation_checkpointing: int = 0,
    lora: LoraConfig | None = None,
    compile: bool = False,
    extras: LogitExtras | None = None,
) -> PolicyModule:
    """A policy from a model in memory.

    Args:
        activation_checkpointing: every n-th layer is computed again in the backward pass; 0: none.
        extras: what the family does to its logits; default: what its config says.

    Raises:
        ConfigError: adapters that don't fit the model, or a family that can't compute layers again.
    """
    recompute_layers(lm, activation_checkpointing)
    save_only_inputs(lm, recomputed(lm))
    if compile:
        compile_fused(lm)
    return PolicyModule(lm if lora is None else with_adapters(lm, lora), extras=extras)


def check_positions(policy: PolicyModule, max_tokens: int) -> None:
    """Refuse sequences at which the rotary embedding changes with what else is in the batch.

    Raises:
        ConfigError: ``max_tokens`` is beyond the length up to which the family's frequencies are the same for all.
    """
    config = policy.base.config.get_text_config()
    rope = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None) or {}
    kinds = {value.get("rope_type") for value in (rope, *rope.values()) if isinstance(value, dict)}
    if not kinds & {"longrope", "dynamic"}:
        return
    limit = rope.get("original_max_position_embeddings") or getattr(config, "original_max_position_embeddings", None)
    limit = int(limit or config.max_position_embeddings)
    if max_tokens > limit:
        what = f"the model's rotary embedding changes beyond {limit} positions with the longest sequence of a batch"
        raise ConfigError(what, "data.max_tokens", f"lower it to {limit} or less")
