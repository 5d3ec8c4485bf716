"""A language model from a folder or hub name, as it was saved."""

from __future__ import annotations

from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from transformers import AutoConfig, PreTrainedModel
from transformers.utils import logging as transformers_logging

from mpo.config.training import Precision, Quantization
from mpo.errors import UserError, first_line
from mpo.policy.model_class import attention_choice, auto_class
from mpo.policy.quantized import keep_gradients, loading_options
from mpo.policy.weights import check_files, check_loaded, widen_when_read


def load_model(
    path: str,
    revision: str | None,
    precision: Precision,
    trust_remote_code: bool,
    quantization: Quantization | None = None,
) -> PreTrainedModel:
    """A language model on the CPU in evaluation mode, all of its parts, its config as it was saved.

    In 4 bits it is on this process's card, where there is one.

    Raises:
        UserError: nothing loadable at ``path``; only safetensors are read, and all weights have to be there.
        ConfigError: what is there is no causal language model.
    """
    transformers_logging.disable_progress_bar()  # stages show their own progress
    check_files(path)
    try:
        config = AutoConfig.from_pretrained(path, revision=revision, trust_remote_code=trust_remote_code)
        widen_when_read(config)
        loader = auto_class(config)
        attention = attention_choice(config, loader)
        return read_weights(path, revision, precision, trust_remote_code, config, loader, attention, quantization)
    except UserError:
        raise
    except (OSError, ValueError, ImportError, RuntimeError, StrictDataclassError) as error:
        first = first_line(error)
        raise UserError(
            f"cannot load a model from {path!r}: {first}", "model.path", "give a folder with weights or a hub name"
        ) from error


def read_weights(
    path: str,
    revision: str | None,
    precision: Precision,
    trust_remote_code: bool,
    config: Any,
    loader: Any,
    attention: str | None,
    quantization: Quantization | None = None,
) -> PreTrainedModel:
    """The model of class ``loader`` on the CPU in evaluation mode, with its weights from safetensors alone.

    Raises:
        UserError: weights that are missing, unexpected or of another shape; what transformers raises passes.
    """
    dtype = torch.bfloat16 if precision is Precision.bf16 else torch.float32
    lm, info = loader.from_pretrained(
        path,
        output_loading_info=True,
        ignore_mismatched_sizes=True,  # they are refused by name
        config=config,
        revision=revision,
        trust_remote_code=trust_remote_code,
        dtype=dtype,
        attn_implementation=attention,
        use_safetensors=True,  # the older format is a pickle, which can run code
        **({} if quantization is None else loading_options(dtype)),
    )
    check_loaded(path, lm, info, quantised_here=quantization is not None)
    keep_gradients(lm)
    return lm.eval()  # type: ignore[no-any-return]
