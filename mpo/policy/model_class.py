"""What a family's class says of itself: what loads it, how it attends, which part of it reads text."""

from __future__ import annotations

from typing import Any

from torch import nn
from transformers import AutoModelForCausalLM, AutoModelForImageTextToText, PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING, MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING

from mpo.errors import ConfigError

EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts", "num_routed_experts", "moe_num_experts")
"""Names that transformers' configs have for their number."""


def is_composite(config: Any) -> bool:
    """Whether the text model is one part among others: of an image-text model, say."""
    return config.get_text_config() is not config


def auto_class(config: Any) -> Any:
    """The class of transformers' that loads the checkpoint as the model that was saved.

    ``AutoModelForCausalLM`` would load only the text part of some image-text checkpoints, and others not at all.

    Raises:
        ConfigError: the checkpoint is no language model, or one that reads its prompt with an encoder.
    """
    if "AutoModelForCausalLM" in (getattr(config, "auto_map", None) or {}):
        return AutoModelForCausalLM
    of_text = MODEL_FOR_CAUSAL_LM_MAPPING.get(type(config), None)
    of_images = MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING.get(type(config), None)
    saved_as = (getattr(config, "architectures", None) or [None])[0]
    if is_composite(config) and of_images is not None and (of_text is None or saved_as != of_text.__name__):
        return AutoModelForImageTextToText
    if of_text is None or (getattr(config, "is_encoder_decoder", False) and saved_as != of_text.__name__):
        raise refusal(config, "is not a causal language model")
    return AutoModelForCausalLM


def attention_choice(config: Any, loader: Any) -> str | None:
    """Which attention to load the model with; None: for each of its parts the class's own choice.

    ``eager`` for families that cap their attention's logits, which the fused kernels leave out, and for those whose
    class supports no other.
    """
    mapping = MODEL_FOR_CAUSAL_LM_MAPPING if loader is AutoModelForCausalLM else MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING
    model_class = mapping.get(type(config), None)
    if caps_attention(config) or not getattr(model_class, "_supports_sdpa", True):
        return "eager"
    return None if is_composite(config) or model_class is None else "sdpa"


def caps_attention(config: Any) -> bool:
    """Whether attention's logits are capped by tanh."""
    return getattr(config.get_text_config(), "attn_logit_softcapping", None) is not None


def experts(config: Any) -> int:
    """Experts that the router of a layer chooses among; 0 for models without."""
    text = config.get_text_config()
    found = (getattr(text, name, None) for name in EXPERTS)
    return max((number for number in found if isinstance(number, int) and number > 1), default=0)


def router_note(config: Any) -> str | None:
    """What to say of how routers are trained, in one line; None for models that have none."""
    if not (number := experts(config)):
        return None
    coefficient = getattr(config.get_text_config(), "router_aux_loss_coef", None)
    left_out = f" (its router_aux_loss_coef {coefficient:g} is not used)" if coefficient else ""
    return (
        f"routers choose among {number} experts a layer and are trained by the loss alone: no load-balancing loss is "
        f"added{left_out}"
    )


def backbone(lm: PreTrainedModel) -> nn.Module:
    """The text model without its head: token ids to hidden states.

    What the class names, and of composite models, or where it names nothing, the innermost model that embeds the
    tokens.

    Raises:
        ConfigError: there is none.
    """
    named = getattr(lm, lm.base_model_prefix, None) if lm.base_model_prefix else None
    if isinstance(named, nn.Module) and not is_composite(lm.config):
        return named
    embedding = lm.get_input_embeddings()
    models = [m for m in lm.modules() if isinstance(m, PreTrainedModel) and any(e is embedding for e in m.modules())]
    if models[1:]:
        return models[-1]  # modules come from the outside in
    raise refusal(lm.config, "has no part that gives hidden states without logits")


def refusal(config: Any, what: str) -> ConfigError:
    """One line that names the family, the reason and what to do."""
    return ConfigError(
        f"model type {config.model_type} {what}",
        "model.path",
        "use a decoder-only language model that transformers' AutoModelForCausalLM trains",
    )
