"""A reward model in vLLM's pooling runner, for heads of one linear layer at the last token."""

from __future__ import annotations

import gc
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedTokenizerBase

from mpo.config.training import Precision
from mpo.data.tokenizer import load_tokenizer
from mpo.engine import in_one_line, load_engine
from mpo.errors import ConfigError
from mpo.score.forward import read_config

WHERE, REMEDY = "score", "score.engine=transformers scores without it"


@dataclass
class PoolingModel:
    """A reward model in an engine in this process, with its tokenizer."""

    engine: Any
    tokenizer: PreTrainedTokenizerBase

    def scores(self, rows: Sequence[Sequence[int]], batch_tokens: int) -> list[float]:
        """Scores of rows of token ids, in their order; the engine makes its own batches, not of ``batch_tokens``."""
        from vllm import PoolingParams

        prompts = [{"prompt_token_ids": list(row)} for row in rows]
        raw = PoolingParams(use_activation=False)  # with it, one output goes through a sigmoid
        with in_one_line(WHERE, REMEDY):
            answers = self.engine.encode(prompts, pooling_params=raw, pooling_task="classify", use_tqdm=False)
        return [float(answer.outputs.data.flatten()[0]) for answer in answers]

    def release(self) -> None:
        """Drop the engine; GPU memory goes back to the device."""
        from vllm.distributed.parallel_state import cleanup_dist_env_and_memory

        self.engine = None
        gc.collect()
        cleanup_dist_env_and_memory()


def load_pooling_model(
    path: str,
    revision: str | None,
    precision: Precision,
    trust_remote_code: bool,
    chat_template: str | None,
    max_tokens: int,
    gpu_memory: float,
) -> PoolingModel:
    """A sequence classifier with one output in vLLM, and its tokenizer.

    Raises:
        UserError: nothing at ``path``.
        ConfigError: it is another kind of model, vLLM cannot load it, or there is no tokenizer.
    """
    config = read_config(path, revision, trust_remote_code)
    kinds = list(getattr(config, "architectures", None) or [])
    if not any(kind.endswith("ForSequenceClassification") for kind in kinds) or config.num_labels != 1:
        what = f"'{path}' holds {', '.join(kinds) or 'no named class'} with {config.num_labels} outputs"
        raise ConfigError(what, "score.engine", "vllm takes sequence classifiers with one output: engine=transformers")
    tokenizer = load_tokenizer(path, chat_template, trust_remote_code, revision)
    with in_one_line(WHERE, REMEDY):
        engine = load_engine(
            path,
            max_tokens,
            precision,
            eager=False,
            runner="pooling",
            revision=revision,
            trust_remote_code=trust_remote_code,
            gpu_memory_utilization=gpu_memory,
        )
    return PoolingModel(engine, tokenizer)
