"""A judge in vLLM's engine in this process, which ends with it. Torch and vLLM are imported when it is loaded."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mpo.config.training import Precision
from mpo.engine import in_one_line, load_engine
from mpo.errors import ConfigError, DataError
from mpo.score.chat import Answer, Chat, Refused
from mpo.score.model_folder import model_location
from mpo.types import Message

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

WHERE, REMEDY = "score.path", "serve it, and name score.urls and score.model instead"
AT_ONCE = 256
"""Conversations that the engine gets together; answers come so many at a time."""


class LoadedChat(Chat):
    """A language model in an engine, on one card or a tensor-parallel group.

    Args:
        path: folder or hub name.
        context_tokens: most tokens of a conversation with its answer; a longer one is refused.
        tensor_parallel: cards that share the model.
        gpu_memory: share of a card's memory that the engine takes.

    Raises:
        ConfigError: vLLM cannot load it, or it has no tokenizer with a chat template.
    """

    def __init__(
        self,
        path: str,
        revision: str | None,
        precision: Precision,
        context_tokens: int,
        tensor_parallel: int,
        gpu_memory: float,
    ) -> None:
        from mpo.data.chat import chat_format
        from mpo.data.tokenizer import load_tokenizer

        self._path, self._context_tokens = model_location(path), context_tokens
        self._tokenizer: PreTrainedTokenizerBase = load_tokenizer(self._path, revision=revision)
        try:
            chat_format(self._tokenizer)
        except ConfigError as error:
            raise ConfigError(f"of the judge: {error.what}", WHERE, "take a model that is tuned to chat") from error
        with in_one_line(WHERE, REMEDY):
            self._engine = load_engine(
                self._path,
                context_tokens,
                precision,
                eager=False,
                revision=revision,
                tensor_parallel_size=tensor_parallel,
                gpu_memory_utilization=gpu_memory,
            )

    def answers(
        self, conversations: Sequence[Sequence[Message]], most_tokens: int, top_logprobs: int
    ) -> Iterator[tuple[int, Answer | Refused]]:
        """See :meth:`Chat.answers`."""
        from vllm import SamplingParams

        params = SamplingParams(temperature=0.0, max_tokens=most_tokens, logprobs=top_logprobs or None)
        rows = [self._ids(turns) for turns in conversations]
        fitting = []
        for place, ids in enumerate(rows):
            if len(ids) + most_tokens <= self._context_tokens:
                fitting.append(place)
                continue
            what = f"a question of {len(ids)} tokens leaves no room for an answer of {most_tokens}"
            yield place, Refused(DataError(what, "score.context_tokens", "raise it"))
        for start in range(0, len(fitting), AT_ONCE):
            chosen = fitting[start : start + AT_ONCE]
            with in_one_line(WHERE, REMEDY):
                prompts = [{"prompt_token_ids": rows[place]} for place in chosen]
                found = self._engine.generate(prompts, params, use_tqdm=False)
            yield from zip(chosen, map(_answer, found), strict=True)

    def _ids(self, turns: Sequence[Message]) -> list[int]:
        import jinja2

        from mpo.data.chat import render_prompt

        try:
            return render_prompt(self._tokenizer, turns)
        except jinja2.TemplateError as error:
            what = f"the judge's chat template refuses a question: {str(error)[:120]}"
            raise DataError(what, WHERE, "take another judge") from error

    def close(self) -> None:
        """Drop the engine; GPU memory goes back to the device."""
        from vllm.distributed.parallel_state import cleanup_dist_env_and_memory

        self._engine = None
        gc.collect()
        cleanup_dist_env_and_memory()


def _answer(found: Any) -> Answer:
    (output,) = found.outputs
    tokens = [
        _token(index, at) for index, at in zip(output.token_ids, output.logprobs or [], strict=bool(output.logprobs))
    ]
    return Answer(output.text, tokens, str(output.finish_reason))


def _token(drawn: int, at: Mapping[int, Any]) -> dict[str, Any]:
    """vLLM's log-probs at one place in the chat API's form."""
    each = {index: {"token": one.decoded_token or "", "logprob": float(one.logprob)} for index, one in at.items()}
    return {**each[drawn], "top_logprobs": list(each.values())}
