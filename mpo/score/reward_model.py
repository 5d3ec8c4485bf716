"""Reward models that read one conversation and give one number. No torch until :meth:`RewardModel.score`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

from mpo.config.training import Precision
from mpo.engine import check_installed
from mpo.errors import ConfigError, DataError
from mpo.score.base import Item, check_score_name
from mpo.score.model_folder import (
    Head,
    architecture,
    label_count,
    model_location,
    read_model_config,
)
from mpo.score.model_scorer import ModelScorer

if TYPE_CHECKING:
    from mpo.score.forward import LoadedModel
    from mpo.score.pooling import PoolingModel

CUT = "longer than max_tokens: the beginning of the conversation was cut off"
CUT_RESPONSE = "longer than max_tokens: the prompt and the beginning of the response were cut off"


class TooLong(Enum):
    """What happens to conversations above ``max_tokens``."""

    cut = "cut"
    refuse = "refuse"


class Engine(Enum):
    """What runs the model."""

    transformers = "transformers"
    vllm = "vllm"


HEADS_BY_CLASS = {
    "LlamaForRewardModelWithGating": "armorm or qrm",
    "INFORMForSequenceClassification": "inf_orm",
    "LlamaForSequenceClassificationWithNormal_Weights": "urm",
    "GRewardModel": "grm",
}
"""Classes, as config.json files name them, whose head is none of transformers' own."""
NEEDED = {Head.armorm: ("num_objectives",), Head.qrm: ("num_objectives", "num_quantiles")}
"""Keys of config.json without which a head has no shape."""


@dataclass(frozen=True)
class RewardModel(ModelScorer):
    """A reward model: a decoder-only language model with a head, read at the last token of the whole conversation.

    The conversation with the response as its last turn is rendered by the model's own chat template, all of it: also
    what the template writes after the end of the turn. Its tools are passed to the template.

    ``path``: a folder or hub name; ``name``: under which its scores are kept. ``max_tokens``: longest input, the BOS
    included; ``too_long``: ``cut`` drops the oldest tokens after the BOS, so that the response's end, where the score
    is read, stays (counted, and a warning); ``refuse`` is an error. ``batch_tokens``: tokens that are computed at once,
    padding included. ``bos``: how many BOS tokens begin the input where the template or the tokenizer writes one; 2
    for models whose published recipe renders and tokenises with one each. ``precision``: of the weights; the head and
    the hidden states that it reads are float32. ``engine``: ``vllm`` takes models with a linear head alone, and takes
    ``gpu_memory``, a share, of a card. ``parameters``: of the model, for the plan.
    """

    path: str
    name: str = "reward_model"
    revision: str | None = None
    head: Head = Head.linear
    precision: Precision = Precision.bf16
    max_tokens: int = 4096
    too_long: TooLong = TooLong.cut
    batch_tokens: int = 16384
    bos: int = 1
    chat_template: str | None = None
    trust_remote_code: bool = False
    engine: Engine = Engine.transformers
    gpu_memory: float = 0.9
    parameters: int | None = None

    items_at_once: ClassVar[int] = 256
    change_no_score: ClassVar[frozenset[str]] = frozenset({"gpu_memory", "parameters"})
    continuous: ClassVar[bool] = True

    def check(self) -> None:
        """Raise ConfigError for options or a folder that cannot work; a hub's files are looked at when loaded."""
        check_score_name(self.name)
        for key, least in (("max_tokens", 8), ("batch_tokens", 1)):
            if getattr(self, key) < least:
                raise ConfigError(f"{getattr(self, key)} is too few", f"score.{key}", f"give at least {least}")
        if self.bos not in (1, 2):
            raise ConfigError(f"{self.bos} BOS tokens", "score.bos", "give 1, or 2 for a recipe with a second one")
        if self.engine is Engine.vllm:
            if self.head is not Head.linear:
                what = f"vLLM has no {self.head.value} head"
                raise ConfigError(what, "score.engine", "score.engine=transformers")
            check_installed("score.engine", "score.engine=transformers")
        if not 0 < self.gpu_memory <= 1:
            raise ConfigError(f"{self.gpu_memory} is out of range", "score.gpu_memory", "give a share in (0, 1]")
        self._template()
        config = read_model_config(self.path)
        if config is not None:
            self._check_kind(config)

    def _template(self) -> str | None:
        from mpo.data.tokenizer import load_template

        try:
            return None if self.chat_template is None else load_template(self.chat_template)
        except ConfigError as error:
            raise ConfigError(error.what, "score.chat_template", error.remedy) from None

    def _check_kind(self, config: dict[str, Any]) -> None:
        kind, where = architecture(config), f"'{self.path}' holds a"
        limit = config.get("max_position_embeddings")
        if isinstance(limit, int) and self.max_tokens > limit:
            what = f"{self.max_tokens} is beyond the model's {limit} positions"
            raise ConfigError(what, "score.max_tokens", f"give at most {limit}")
        for key in NEEDED.get(self.head, ()):
            if not isinstance(config.get(key), int):
                what = f"{where} {kind or 'model'} whose config.json has no {key}"
                raise ConfigError(what, "score.head", "choose the head that the model was trained with")
        if self.head is Head.token_logit and not kind.endswith(("ForCausalLM", "LMHeadModel")):
            raise ConfigError(f"{where} {kind or 'model'}, which has no token logits", "score.head", "choose another")
        if self.head is not Head.linear or self.trust_remote_code:
            return
        if kind in HEADS_BY_CLASS:
            raise ConfigError(f"{where} {kind}", "score.head", f"choose {HEADS_BY_CLASS[kind]}")
        if not kind.endswith("ForSequenceClassification"):
            what = f"{where} {kind or 'model of no named class'}, which is no sequence classification model"
            raise ConfigError(what, "score.path", "name a reward model, or choose its score.head")
        if label_count(config) != 1:
            what = f"{where} {kind} with {label_count(config)} outputs"
            raise ConfigError(what, "score.path", "name a reward model with one (num_labels 1)")

    def tokens_read(self, prompt: int, response: int, responses: int) -> int:
        """See :meth:`ModelScorer.tokens_read`: the whole conversation for each response."""
        return responses * min(prompt + response, self.max_tokens)

    def score(self, items: Sequence[Item]) -> list[float]:
        """See :meth:`Scorer.score`.

        Raises:
            UserError: the model cannot be loaded, or lacks weights or has others than its head.
            DataError: its chat template refuses a conversation, one is too long, or a score is not finite.
        """
        rows = [self._input_ids(item) for item in items]
        scores = self._loaded.scores(rows, self.batch_tokens)
        broken = [score for score in scores if not math.isfinite(score)]
        if broken:
            what = f"{self.name} ('{self.path}') gives {broken[0]} for {len(broken)} of {len(scores)} responses"
            raise DataError(what, "score", "set score.precision=fp32, or check the model's weights")
        return scores

    @cached_property
    def _loaded(self) -> LoadedModel | PoolingModel:
        if self.engine is Engine.vllm:
            from mpo.score.pooling import load_pooling_model

            return load_pooling_model(
                model_location(self.path),
                self.revision,
                self.precision,
                self.trust_remote_code,
                self._template(),
                self.max_tokens,
                self.gpu_memory,
            )
        from mpo.score.forward import load_reward_model

        return load_reward_model(
            model_location(self.path),
            self.revision,
            self.head,
            self.precision,
            self.trust_remote_code,
            self._template(),
        )

    def _input_ids(self, item: Item) -> list[int]:
        """The rendered conversation's ids, cut where it is too long."""
        from mpo.data.chat import raw_ids
        from mpo.score.inputs import conversation_ids, leading

        tokenizer = self._loaded.tokenizer
        ids = conversation_ids(tokenizer, item, self.bos)
        if len(ids) <= self.max_tokens:
            return ids
        if self.too_long is TooLong.refuse:
            what = f"a conversation has {len(ids)} tokens, more than max_tokens={self.max_tokens}"
            raise DataError(what, "score.max_tokens", "raise it, or set score.too_long=cut")
        kept = leading(ids, tokenizer.bos_token_id)
        left = self.max_tokens - kept
        own = len(raw_ids(tokenizer, [item.response.content])[0])
        self._counts[CUT_RESPONSE if own >= left else CUT] += 1
        return ids[:kept] + ids[len(ids) - left :]
