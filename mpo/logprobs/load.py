"""A policy from a folder or hub name, ready to train or to score."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from huggingface_hub.errors import StrictDataclassError
from peft import LoraConfig as PeftLoraConfig
from peft import get_peft_model
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel
from transformers.utils import logging as transformers_logging

from mpo.config.schema import LoraConfig, Precision
from mpo.errors import ConfigError, UserError
from mpo.logprobs import attention
from mpo.logprobs.batch import TokenBatch
from mpo.logprobs.layers import keep_inputs_alone
from mpo.logprobs.pieces import laid_out
from mpo.logprobs.policy import PolicyModule
from mpo.logprobs.weights import check_files, check_loaded


def load_policy(
    path: str,
    revision: str | None = None,
    precision: Precision = Precision.fp32,
    trust_remote_code: bool = False,
    activation_checkpointing: bool = False,
    lora: LoraConfig | None = None,
    compile: bool = False,
) -> PolicyModule:
    """Load a causal language model as a policy, every dropout off, on the CPU.

    Args:
        path: folder or hub name.
        revision: commit, tag or branch on the hub.
        precision: dtype of the weights.
        activation_checkpointing: recompute each layer in backward.
        lora: train adapters on a frozen model instead.
        compile: norms and gates fused by torch.compile.

    Raises:
        UserError: nothing loadable at ``path``.
        ConfigError: a family whose logits are not head(hidden states) with a known factor or cap, or adapters that
            don't fit the model.
    """
    lm = load_model(path, revision, precision, trust_remote_code)
    policy = PolicyModule(lm)
    check_head(policy)
    if not _capped(lm.config):
        share_prefix(lm)
    return make_policy(lm, activation_checkpointing, lora, compile)


def load_model(path: str, revision: str | None, precision: Precision, trust_remote_code: bool) -> PreTrainedModel:
    """A causal language model on the CPU, every dropout off.

    Families that cap their attention's logits get ``eager`` attention: the fused kernels leave the cap out.

    Raises:
        UserError: nothing loadable at ``path``; only safetensors are read, and all weights have to be there.
    """
    transformers_logging.disable_progress_bar()  # stages show their own progress
    check_files(path)
    try:
        config = AutoConfig.from_pretrained(path, revision=revision, trust_remote_code=trust_remote_code)
        _dropout_off(config)
        lm, info = AutoModelForCausalLM.from_pretrained(
            path,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # they are refused by name
            config=config,
            revision=revision,
            trust_remote_code=trust_remote_code,
            dtype=torch.bfloat16 if precision is Precision.bf16 else torch.float32,
            attn_implementation="eager" if _capped(config) else "sdpa",
            use_safetensors=True,  # the older format is a pickle, which can run code
        )
    except (OSError, ValueError, ImportError, RuntimeError, StrictDataclassError) as error:
        first = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise UserError(
            f"cannot load a model from {path!r}: {first}", "model.path", "give a folder with weights or a hub name"
        ) from error
    check_loaded(path, info)
    for module in lm.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    return lm  # type: ignore[no-any-return]


def _capped(config: Any) -> bool:
    return getattr(config.get_text_config(), "attn_logit_softcapping", None) is not None


def make_policy(
    lm: PreTrainedModel,
    activation_checkpointing: bool = False,
    lora: LoraConfig | None = None,
    compile: bool = False,
) -> PolicyModule:
    """A policy from a model in memory.

    Raises:
        ConfigError: adapters that don't fit the model.
    """
    keep_inputs_alone(lm, compile, activation_checkpointing)
    if activation_checkpointing:
        lm.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    return PolicyModule(lm if lora is None else _with_adapters(lm, lora))


def check_head(policy: PolicyModule) -> None:
    """Compare the policy's log-probs with the model's own logits on three tokens.

    Raises:
        ConfigError: they differ, so the family does something to its logits that :class:`ChunkedHead` doesn't.
    """
    base = policy.base
    ids_RT = torch.arange(3, device=policy.device).unsqueeze(0) % base.config.get_text_config().vocab_size
    with torch.no_grad():
        hidden_RTD = getattr(base, base.base_model_prefix)(input_ids=ids_RT, use_cache=False).last_hidden_state
        ours_N, _ = policy.head(hidden_RTD[0, :-1], ids_RT[0, 1:])
        logits_RTV = base(input_ids=ids_RT, use_cache=False).logits.float()
    theirs_N = logits_RTV.log_softmax(-1)[0, :-1].gather(-1, ids_RT[0, 1:, None]).squeeze(-1)
    tolerance = 1e-3 if base.dtype == torch.float32 else 0.1
    if not torch.allclose(ours_N, theirs_N, rtol=0.0, atol=tolerance):
        raise ConfigError(
            f"model type {base.config.model_type} changes its logits in a way that is not known here",
            "model.path",
            "use another model family",
        )


def share_prefix(lm: PreTrainedModel) -> bool:
    """Compute each prompt once for all its responses, if this family gives the same log-probs that way.

    Compares both layouts on a small set, whole and in pieces, and looks whether one response can be seen from another.
    A family that hands its attention no layout, or whose layers mix tokens in another way (state-space models, say),
    stays with a row for each response.
    """
    config = lm.config.get_text_config()
    rows, vocab = config._attn_implementation, config.vocab_size
    windows: set[int | None] = set()

    def watched(batch: TokenBatch) -> attention.Attend:
        attend = attention.DEFAULT[batch.input_ids_N.device.type](batch)

        def with_window(
            query_NHD: Tensor, key_NGD: Tensor, value_NGD: Tensor, scale: float, window: int | None
        ) -> Tensor:
            windows.add(window)
            return attend(query_NHD, key_NGD, value_NGD, scale, window)

        return with_window

    policy = PolicyModule(lm, watched)

    def probe(first: int) -> _Probe:
        return _Probe("probe", np.arange(3) % vocab, [(np.arange(4) + first) % vocab, np.arange(1, 5) % vocab])

    def logps(*pieces: list[int], first: int = 0) -> Tensor:
        forwards = laid_out([probe(first)], [(0, piece) for piece in pieces], policy.shares_prefix)
        with torch.no_grad():
            logps_1K = [policy(one.batch.to(policy.device), one.prompt).logps_BK for one in forwards]
        return torch.cat(logps_1K).sum(0)

    expected_K = logps([0, 1])
    tolerance = 1e-4 if lm.dtype == torch.float32 else 0.2
    try:
        lm.set_attn_implementation(attention.NAME)
        found_K, changed_K, apart_K = logps([0, 1]), logps([0, 1], first=7), logps([0], [1])
        # Another first response must leave the second's log-prob alone, to the last bit: with the small weights of
        # an untrained model a leak would hide within any tolerance.
        alike = all(torch.allclose(one_K, expected_K, rtol=1e-3, atol=tolerance) for one_K in (found_K, apart_K))
        alike = alike and bool(found_K[1] == changed_K[1])
        # A window that only the mask knows would be lost, and no small probe is longer than a real one.
        alike = alike and not (_has_window(config) and windows <= {None})
    except (TypeError, ValueError, RuntimeError):
        alike = False
    if not alike:
        lm.set_attn_implementation(rows)
    return alike


def _has_window(config: Any) -> bool:
    """Whether some layers see a part of the sequence only."""
    types = getattr(config, "layer_types", None)
    if getattr(config, "attention_chunk_size", None) is not None:
        return True
    if types:
        return any(kind != "full_attention" for kind in types)
    return getattr(config, "sliding_window", None) is not None


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


class _Probe(NamedTuple):
    id: str
    prompt_ids: np.ndarray
    response_ids: list[np.ndarray]


def _dropout_off(config: Any) -> None:
    for part in {id(part): part for part in (config, config.get_text_config())}.values():
        for name, value in part.to_dict().items():
            noisy = "dropout" in name or "pdrop" in name or name in ("layerdrop", "router_jitter_noise")
            if noisy and isinstance(value, float):
                setattr(part, name, 0.0)


def _with_adapters(lm: PreTrainedModel, lora: LoraConfig) -> nn.Module:
    head = lm.get_output_embeddings().weight
    modules = [f".{name}" for name, _ in lm.named_modules()]
    for target in lora.target_modules:  # peft is content if one of them is found
        if not any(name.endswith(f".{target}") for name in modules):
            raise ConfigError(f"the model has no '{target}'", "train.lora.target_modules", "name its linear maps")
    for name, module in lm.named_modules():
        short = name.rpartition(".")[2]
        if short in lora.target_modules and getattr(module, "weight", None) is head:
            tied = "" if module is lm.get_output_embeddings() else ", and shares its weights with it"
            raise ConfigError(f"the head takes no adapter{tied}", "train.lora.target_modules", f"remove {short}")
    targets: list[str] | str = list(lora.target_modules) or "all-linear"
    adapters = PeftLoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,  # type: ignore[arg-type]  # peft says int and takes any number
        lora_dropout=0.0,
        target_modules=targets,
        task_type="CAUSAL_LM",
    )
    try:
        return get_peft_model(lm, adapters)  # type: ignore[no-any-return,arg-type]
    except ValueError as error:
        raise ConfigError(f"adapters don't fit the model: {error}", "train.lora", "change target_modules") from error
