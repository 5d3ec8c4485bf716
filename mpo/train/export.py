"""A trained policy as a Hugging Face folder that other tools load."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import GENERATION_CONFIG_NAME

from mpo.errors import UserError, first_line
from mpo.policy.adapters import ADAPTER, adapter_weights, is_adapted, save_adapter
from mpo.policy.model_class import is_composite
from mpo.policy.module import PolicyModule
from mpo.policy.quantized import whole_weight
from mpo.policy.text_part import other_parts, processor_files
from mpo.train.zero import gathered


def export_policy(
    policy: PolicyModule,
    out: Path,
    rank: int = 0,
    tokenizer: PreTrainedTokenizerBase | None = None,
    stop_token_ids: list[int] | None = None,
    facts: Mapping[str, Any] | None = None,
) -> None:
    """Write weights (whole, adapters merged), tokenizer, generation config and model card.

    The folder holds a model of the same class as the one that was loaded: of one that reads images too, the parts that
    were not trained, and the files of its processor, come from where it was loaded from.

    All processes take part, because ZeRO-3 has spread the weights; the first one writes, under a temporary name that
    becomes ``out`` when everything is there.

    Args:
        out: folder to make; one that is there is replaced.
        tokenizer: saved with its chat template.
        stop_token_ids: end-of-sequence ids for generation; None: the model's own.
        facts: sections of the model card: config, data, metrics, by title.
    """
    state = whole_state(policy, keep=rank == 0)
    if rank != 0:
        return
    unfinished = out.with_name(f"tmp-{out.name}")
    if policy.source is not None and is_composite(policy.base.config):
        state |= other_parts(policy.source, state)
    _write(policy, state, unfinished, tokenizer, stop_token_ids, facts or {})
    if out.exists():
        shutil.rmtree(out)
    unfinished.rename(out)


def export_adapter(policy: PolicyModule, out: Path, rank: int = 0) -> None:
    """Write the adapters by themselves, for the model that they were trained on; nothing where there are none.

    All processes take part, as in :func:`export_policy`.
    """
    parameters = adapter_weights(policy.lm)
    state: dict[str, Tensor] = {}
    for name, parameter in parameters.items():
        with torch.no_grad(), gathered([parameter]):
            if rank == 0:
                state[name] = parameter.detach().to("cpu", copy=True)
    if rank != 0 or not parameters:
        return
    unfinished = out.with_name(f"tmp-{out.name}")
    shutil.rmtree(unfinished, ignore_errors=True)
    save_adapter(policy.lm, state, None if policy.source is None else policy.source.path, unfinished)
    shutil.rmtree(out, ignore_errors=True)
    unfinished.rename(out)


def rehearse_export(
    policy: PolicyModule,
    out: Path,
    tokenizer: PreTrainedTokenizerBase | None = None,
    stop_token_ids: list[int] | None = None,
) -> str | None:
    """Write and remove all that :func:`export_policy` will write but the weights; one process does so before training.

    Returns what transformers finds wrong with the generation config, which is exported as it is all the same.

    Raises:
        UserError: something cannot be written, so that the trained policy could not be either.
    """
    folder = out.with_name(f"rehearsal-{out.name}")
    try:
        _write(policy, {}, folder, tokenizer, stop_token_ids, {})
    except UserError:
        raise
    except Exception as error:  # of whatever kind: after training it would cost the training
        first = first_line(error)
        what = f"the trained policy could not be saved: {first}"
        raise UserError(what, "model.path", "correct this in the model's or the tokenizer's folder") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    try:
        _generation_config(policy.base, stop_token_ids).validate(strict=True)
    except ValueError as error:
        return next((line.strip(" -") for line in str(error).splitlines()[1:] if line.strip()), str(error))
    return None


def _write(
    policy: PolicyModule,
    state: dict[str, Tensor],
    folder: Path,
    tokenizer: PreTrainedTokenizerBase | None,
    stop_token_ids: list[int] | None,
    facts: Mapping[str, Any],
) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    base = policy.base
    with torch.device("meta"):  # a model of the same class without adapters or hooks, for its way of saving
        config = copy.deepcopy(base.config)
        if getattr(config, "quantization_config", None) is not None:  # what is written is whole
            del config.quantization_config
        skeleton: PreTrainedModel = type(base)._from_config(config, dtype=base.dtype)
    skeleton.generation_config = GenerationConfig()
    skeleton.save_pretrained(folder, state_dict=state)
    # Not by its own save_pretrained, which refuses flags without effect, such as a temperature without do_sample.
    _generation_config(base, stop_token_ids).to_json_file(folder / GENERATION_CONFIG_NAME)
    if tokenizer is not None:
        tokenizer.save_pretrained(folder)
    if policy.source is not None and is_composite(base.config):
        for file in processor_files(policy.source):
            shutil.copyfile(file, folder / file.name)
    (folder / "README.md").write_text(model_card(facts))


def whole_state(policy: PolicyModule, keep: bool) -> dict[str, Tensor]:
    """The model's state dict on the CPU, gathered module by module, adapters merged: W + (alpha/rank)·B·A.

    Args:
        keep: False in processes that only take part in the gathering; they get an empty dict.
    """
    state: dict[str, Tensor] = {}
    seen: set[nn.Parameter] = set()
    inside: str | None = None
    for name, module in policy.base.named_modules():
        if inside is not None and name.startswith(inside):
            continue
        adapted = is_adapted(module)
        inside = f"{name}." if adapted else None
        with torch.no_grad(), gathered(list(module.parameters(recurse=adapted))):
            if not keep:
                continue
            owner = module.get_base_layer() if adapted else module
            for part, parameter in owner.named_parameters(recurse=False):
                if parameter in seen:  # tied weights are saved once
                    continue
                seen.add(parameter)
                value = whole_weight(parameter)
                if adapted and part == "weight":
                    value = value + module.get_delta_weight(ADAPTER).to(value.dtype)
                state[f"{name}.{part}".lstrip(".")] = value.to("cpu", copy=True).contiguous()
            for part, buffer in owner.named_buffers(recurse=False):
                if part not in owner._non_persistent_buffers_set:
                    state[f"{name}.{part}".lstrip(".")] = buffer.detach().to("cpu", copy=True)
    return state


def model_card(facts: Mapping[str, Any]) -> str:
    """README.md of a policy: what it was made of, as JSON blocks by title."""
    lines = ["---", "library_name: transformers", "pipeline_tag: text-generation", "tags: [mpo, alignment]", "---", ""]
    lines += ["# Policy trained with mpo", "", "Multi-preference optimisation of a language model."]
    for title, content in facts.items():
        lines += ["", f"## {title}", "", "```json", json.dumps(content, indent=2, default=str), "```"]
    return "\n".join(lines) + "\n"


def _generation_config(base: PreTrainedModel, stop_token_ids: list[int] | None) -> GenerationConfig:
    config = base.generation_config
    kept = GenerationConfig.from_model_config(base.config) if config is None else copy.deepcopy(config)
    if stop_token_ids:
        kept.eos_token_id = list(stop_token_ids)
    return kept
