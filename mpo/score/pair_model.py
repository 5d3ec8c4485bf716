"""PairRM's model: DeBERTa over a prompt and two responses, with one head that both responses share."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import DebertaV2Model, PreTrainedTokenizerBase
from transformers.models.deberta_v2.modeling_deberta_v2 import DebertaV2PreTrainedModel

from mpo.config.training import Precision
from mpo.data.tokenizer import load_tokenizer
from mpo.errors import ConfigError
from mpo.score.forward import by_length, compute_device, load_weights, padded_right, read_config, release_memory
from mpo.score.heads import at
from mpo.score.model_folder import PAIR_KEYS

PREFIXES = ("<|source|>", "<|candidate1|>", "<|candidate2|>")
CUT_PROMPT = "prompt longer than prompt_tokens: its end was cut off"
CUT_RESPONSE = "longer than the tokens of a response: its end was cut off"


class PairModel(DebertaV2PreTrainedModel):
    """DeBERTa-v2 and PairRM's head; parameters are named as in llm-blender/PairRM-hf."""

    base_model_prefix = "pretrained_model"
    _keep_in_fp32_modules_strict = ["head_layer"]

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        size = config.hidden_size
        self.pretrained_model = DebertaV2Model(config)
        # The two Identity stand for dropout, which is off: the linear layers have the numbers 1 and 4.
        self.head_layer = nn.Sequential(
            nn.Identity(), nn.Linear(2 * size, size), nn.Tanh(), nn.Identity(), nn.Linear(size, config.n_tasks)
        )
        self.post_init()

    def logits(self, hidden_BTD: torch.Tensor, prefixes_B3: torch.Tensor) -> torch.Tensor:
        """That the first response is better, float32 [B], from the hidden states at the three prefix tokens."""
        prompt_BD, first_BD, second_BD = (at(hidden_BTD, prefixes_B3[:, i]) for i in range(3))
        first_BN = self.head_layer(torch.cat([prompt_BD, first_BD], dim=1))
        second_BN = self.head_layer(torch.cat([prompt_BD, second_BD], dim=1))
        return (first_BN - second_BN).mean(dim=1)  # type: ignore[no-any-return]


@dataclass
class LoadedPairModel:
    """A PairRM on its device, with its tokenizer."""

    lm: Any
    tokenizer: PreTrainedTokenizerBase
    device: torch.device

    def compare(
        self,
        prompt: str,
        responses: Sequence[str],
        pairs: Sequence[tuple[int, int]],
        prompt_tokens: int,
        response_tokens: int,
        batch_tokens: int,
    ) -> tuple[list[float], Counter[str]]:
        """For each pair (i, j) of responses the logit that i, read first, is better; and how many responses had a
        warning, by reason."""
        cut: Counter[str] = Counter()
        source, shortened = self._encode(PREFIXES[0], prompt, prompt_tokens)
        if shortened:
            cut[CUT_PROMPT] = len(responses)
        most = (prompt_tokens + 2 * response_tokens - len(source)) // 2
        first, second = ([self._encode(prefix, text, most) for text in responses] for prefix in PREFIXES[1:])
        if found := sum(shortened for _, shortened in first):
            cut[CUT_RESPONSE] = found
        rows = [[*source, *first[i][0], *second[j][0]] for i, j in pairs]
        # The first prefix of a part is its own, also where a text holds one.
        own = [self.tokenizer.convert_tokens_to_ids(prefix) for prefix in PREFIXES]
        places = []
        for i, j in pairs:
            parts, starts = (source, first[i][0], second[j][0]), (0, len(source), len(source) + len(first[i][0]))
            places.append([start + part.index(id) for part, start, id in zip(parts, starts, own, strict=True)])
        logits = [0.0] * len(rows)
        for batch in by_length([len(row) for row in rows], batch_tokens):
            ids_BT, mask_BT = padded_right([rows[k] for k in batch])
            prefixes_B3 = torch.tensor([places[k] for k in batch], device=self.device)
            found_B = self._forward(ids_BT.to(self.device), mask_BT.to(self.device), prefixes_B3)
            for k, logit in zip(batch, found_B.tolist(), strict=True):
                logits[k] = logit
        return logits, cut

    @torch.inference_mode()
    def _forward(self, ids_BT: torch.Tensor, mask_BT: torch.Tensor, prefixes_B3: torch.Tensor) -> torch.Tensor:
        hidden_BTD = self.lm.pretrained_model(input_ids=ids_BT, attention_mask=mask_BT).last_hidden_state
        return self.lm.logits(hidden_BTD, prefixes_B3)  # type: ignore[no-any-return]

    def _encode(self, prefix: str, text: str, most: int) -> tuple[list[int], bool]:
        """Ids of one part, [CLS] and [SEP] included, cut to ``most``; and whether it was cut."""
        ids: list[int] = self.tokenizer(prefix + text, verbose=False)["input_ids"]
        return (ids, False) if len(ids) <= most else ([*ids[: most - 1], ids[-1]], True)

    def release(self) -> None:
        """Drop the model; GPU memory goes back to the device."""
        self.lm = None
        release_memory(self.device)


def load_pair_model(path: str, revision: str | None, precision: Precision) -> LoadedPairModel:
    """A PairRM and its tokenizer, on the GPU if there is one.

    Raises:
        UserError: nothing loadable at ``path``, only pickles, weights that are missing or unknown.
        ConfigError: it is another kind of model, or its tokenizer lacks PairRM's prefix tokens.
    """
    config = read_config(path, revision, False)
    if config.model_type != "deberta-v2" or any(getattr(config, key, None) is None for key in PAIR_KEYS):
        raise ConfigError(f"'{path}' is no PairRM", "score.path", "name llm-blender/PairRM-hf or one in its format")
    lm = load_weights(path, revision, precision, False, config, PairModel)
    tokenizer = load_tokenizer(path, revision=revision)
    for prefix, key in zip(PREFIXES, PAIR_KEYS, strict=False):
        wanted = getattr(config, key)
        if tokenizer.convert_tokens_to_ids(prefix) != wanted or wanted not in tokenizer(f"{prefix}a")["input_ids"][:8]:
            what = f"its tokenizer does not read {prefix} as token {wanted}"
            raise ConfigError(what, "score.path", "take the tokenizer of llm-blender/PairRM-hf")
    device = compute_device()
    return LoadedPairModel(lm.to(device), tokenizer, device)
