"""A prompt whose log-probs are known, by which an engine that has loaded other weights is found out. No torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from mpo.cache.artifacts import read_json, write_json
from mpo.config.training import Precision
from mpo.errors import ConfigError

FILE = "canary.json"
MOST_TOKENS = 64
ALLOWED_NATS = {Precision.fp32: 0.01, Precision.bf16: 0.2}
"""Mean absolute difference per token. In bfloat16 two implementations round differently, by some hundredths of a nat;
weights that a training step or two have changed may be within it, those of another model are nats away."""


@dataclass(frozen=True, slots=True)
class Canary:
    """A prompt's ids, and the log-probs of all but the first in nats, as transformers computes them."""

    token_ids: tuple[int, ...]
    token_logps: tuple[float, ...]

    def check(self, found: Sequence[float], precision: Precision, who: str) -> None:
        """Compare the log-probs that an engine gives the same tokens.

        Args:
            found: one for each token but the first.
            who: named in the error.

        Raises:
            ConfigError: they are further away than two implementations round.
        """
        if len(found) != len(self.token_logps):
            what = f"{who} gave {len(found)} log-probs for {len(self.token_logps)} tokens of a known prompt"
            raise ConfigError(what, "sampler", "take sampler=hf")
        differences = [abs(one - other) for one, other in zip(found, self.token_logps, strict=True)]
        mean = sum(differences) / len(differences)
        allowed = ALLOWED_NATS[precision]
        if not mean <= allowed:  # also where it is not a number
            what = (
                f"{who} gives a known prompt log-probs that are {mean:.3g} nats a token off the policy's, where "
                f"{allowed:g} is rounding: its weights are not the policy's"
            )
            raise ConfigError(what, "sampler", "load the policy there, or take sampler=hf")

    def write(self, folder: Path) -> None:
        """Save it in a stage's directory."""
        write_json(folder / FILE, asdict(self))

    @classmethod
    def read(cls, folder: Path) -> Canary:
        """What :meth:`write` wrote."""
        raw = read_json(folder / FILE)
        return cls(tuple(raw["token_ids"]), tuple(raw["token_logps"]))
