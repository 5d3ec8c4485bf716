"""Of a model that reads images too, what computes text: all that is trained, and all that is held in memory."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from torch import Tensor, nn
from transformers import AutoConfig
from transformers.utils import cached_file

from mpo.policy.model_class import auto_class, backbone
from mpo.policy.module import ModelSource, PolicyModule
from mpo.policy.weights import widen_when_read

PROCESSOR_FILES = (
    *("processor_config.json", "preprocessor_config.json", "video_preprocessor_config.json"),
    *("image_processor_config.json", "chat_template.json"),
)
"""What image-text models have beside weights and tokenizer, if they have it."""


def keep_text_part(policy: PolicyModule) -> None:
    """Drop what the text model, the embedding and the head don't hold: vision towers, projectors and the like."""
    lm = policy.base
    text = [backbone(lm), lm.get_input_embeddings(), lm.get_output_embeddings()]
    _drop_others(lm, [part for part in text if isinstance(part, nn.Module)])


def _drop_others(module: nn.Module, kept: list[nn.Module]) -> None:
    for name in list(module._parameters):
        module._parameters[name] = None
    for name in list(module._buffers):
        module._buffers[name] = None
    for name, child in list(module.named_children()):
        if any(child is part for part in kept):
            continue
        if any(part in kept for part in child.modules()):
            _drop_others(child, kept)
        else:
            module.register_module(name, None)


def other_parts(source: ModelSource, text: Collection[str]) -> dict[str, Tensor]:
    """Weights of the whole model that are not among the names ``text``, in the precision that its config names."""
    arguments = {"revision": source.revision, "trust_remote_code": source.trust_remote_code}
    config = AutoConfig.from_pretrained(source.path, **arguments)
    widen_when_read(config)
    lm = auto_class(config).from_pretrained(source.path, config=config, dtype="auto", use_safetensors=True, **arguments)
    state = lm.state_dict()
    tied = {tensor.data_ptr() for name, tensor in state.items() if name in text}
    return {name: value for name, value in state.items() if name not in text and value.data_ptr() not in tied}


def processor_files(source: ModelSource) -> list[Path]:
    """Files of the model's folder that say how images become its input; none for models of text alone."""
    found = (
        cached_file(
            source.path,
            name,
            revision=source.revision,
            _raise_exceptions_for_gated_repo=False,
            _raise_exceptions_for_missing_entries=False,
            _raise_exceptions_for_connection_errors=False,
        )
        for name in PROCESSOR_FILES
    )
    return [Path(file) for file in found if file is not None]
