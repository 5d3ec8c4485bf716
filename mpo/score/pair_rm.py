"""PairRM: responses of one set compared in pairs, each pair in both orders. No torch until :meth:`PairRM.score`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar

from mpo.config.training import Precision
from mpo.errors import ConfigError, DataError
from mpo.score.base import Item, check_score_name
from mpo.score.model_folder import PAIR_KEYS, model_location, read_model_config
from mpo.score.model_scorer import ModelScorer

if TYPE_CHECKING:
    from mpo.score.pair_model import LoadedPairModel

"""Keys that a PairRM's config.json has beside DeBERTa's."""


@dataclass(frozen=True)
class PairRM(ModelScorer):
    """PairRM (llm-blender/PairRM-hf; LLM-Blender, arXiv 2306.02561), turned into scores as SPPO does.

    With c(i, j) the model's logit that response i, read first, is better than j, the score of i among K responses is
    mean over j of c(i, j) - c(j, i), i itself included with zero. Scores tell something within one set only.

    It reads plain text. A prompt of one user turn is read as it is; of a longer conversation every turn is a line that
    begins with its role, which is a choice of this project. A prompt above ``prompt_tokens`` and a response above
    ``response_tokens``, or above half of what a shorter prompt leaves, lose their end, as published (counted, and a
    warning).
    """

    path: str
    name: str = "pair_rm"
    revision: str | None = None
    precision: Precision = Precision.fp32
    prompt_tokens: int = 1224
    response_tokens: int = 412
    batch_tokens: int = 16384
    parameters: int | None = None

    compares: ClassVar[bool] = True
    change_no_score: ClassVar[frozenset[str]] = frozenset({"parameters"})
    continuous: ClassVar[bool] = True

    def check(self) -> None:
        """Raise ConfigError for options or a folder that cannot work; a hub's files are looked at when loaded."""
        check_score_name(self.name)
        for key, least in (("prompt_tokens", 8), ("response_tokens", 8), ("batch_tokens", 1)):
            if getattr(self, key) < least:
                raise ConfigError(f"{getattr(self, key)} is too few", f"score.{key}", f"give at least {least}")
        config = read_model_config(self.path)
        missing = [] if config is None else [key for key in PAIR_KEYS if not isinstance(config.get(key), int)]
        if missing:
            what = f"'{self.path}' is no PairRM: its config.json has no {missing[0]}"
            raise ConfigError(what, "score.path", "name llm-blender/PairRM-hf or a folder in its format")

    def tokens_read(self, prompt: int, response: int, responses: int) -> int:
        """See :meth:`ModelScorer.tokens_read`: each pair in both orders, with its prompt."""
        pair = min(prompt, self.prompt_tokens) + 2 * min(response, self.response_tokens)
        return responses * (responses - 1) * pair

    def score(self, items: Sequence[Item]) -> list[float]:
        """See :meth:`Scorer.score`; ``items`` are the responses of one set.

        Raises:
            UserError: the model cannot be loaded, or lacks weights.
            DataError: a comparison is not finite.
        """
        if not items:
            return []
        prompt, responses = prompt_text(items[0]), [item.response.content for item in items]
        pairs = [(i, j) for i in range(len(items)) for j in range(len(items)) if i != j]
        logits, cut = self._loaded.compare(
            prompt, responses, pairs, self.prompt_tokens, self.response_tokens, self.batch_tokens
        )
        self._counts.update(cut)
        if not all(map(math.isfinite, logits)):
            what = f"{self.name} ('{self.path}') gives a comparison that is not finite"
            raise DataError(what, "score", "set score.precision=fp32, or check the model's weights")
        scores = [0.0] * len(items)
        for (i, j), logit in zip(pairs, logits, strict=True):
            scores[i] += logit / len(items)
            scores[j] -= logit / len(items)
        return scores

    @cached_property
    def _loaded(self) -> LoadedPairModel:
        from mpo.score.pair_model import load_pair_model

        return load_pair_model(model_location(self.path), self.revision, self.precision)


def prompt_text(item: Item) -> str:
    """The prompt as plain text: its only turn's content, or a line ``role: content`` for each turn."""
    if len(item.prompt) == 1:
        return item.prompt[0].content
    return "\n".join(f"{turn.role}: {turn.content}" for turn in item.prompt)
