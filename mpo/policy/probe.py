"""A small response set of random tokens, on which a model that was just loaded is tried."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

PROMPT, RESPONSES = 5, (6, 3)
"""Tokens of the probe's prompt and responses."""


class Probe(NamedTuple):
    """A tokenised set, see :class:`mpo.layout.batch.PromptResponses`."""

    id: str
    prompt_ids: np.ndarray
    response_ids: list[np.ndarray]

    def with_other_first(self, config: Any) -> Probe:
        """The same with other tokens in the first response."""
        draw = np.random.default_rng(1)
        return self._replace(response_ids=[draw.choice(_words(config), RESPONSES[0]), *self.response_ids[1:]])


def probe(config: Any, number: int = 0) -> Probe:
    """The probe of that number, of tokens that mean nothing special to the model."""
    draw, words = np.random.default_rng([2, number]), _words(config)
    prompt, *responses = (draw.choice(words, length) for length in (PROMPT, *RESPONSES))
    return Probe("probe", prompt, responses)


def _words(config: Any) -> np.ndarray:
    """Ids that the config does not name as padding, end, image and so on."""
    special: set[Any] = set()
    for part in (config, config.get_text_config()):
        for name, value in vars(part).items():
            if name.endswith(("_token_id", "_token_index")):
                special.update(value if isinstance(value, list | tuple) else [value])
    ids = np.arange(config.get_text_config().vocab_size)
    words = ids[~np.isin(ids, [each for each in special if isinstance(each, int)])]
    return words if len(words) else ids
