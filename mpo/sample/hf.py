"""Responses drawn with a transformers model, on any device, without a serving engine. No torch until it is opened."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

from mpo.config.schema import SampleConfig
from mpo.errors import ConfigError
from mpo.sample.base import Draw, Sampler, SamplingJob

MOST = {"batch": 10**6, "batch_tokens": 10**9}


@dataclass(frozen=True)
class HFSampler(Sampler):
    """Draws many sequences in step.

    Args:
        batch: most sequences decoded at once.
        batch_tokens: most tokens of prompts and responses at once; of Llama-3-8B, whose keys and values take 128 KiB
            a token, the default is 16 GiB.

    Raises:
        ConfigError: a number out of range.
    """

    batch: int = 1024
    batch_tokens: int = 131072

    replicated: ClassVar[bool] = True

    def __post_init__(self) -> None:
        for name, most in MOST.items():
            value = getattr(self, name)
            if not 1 <= value <= most:
                raise ConfigError(f"{value} is out of range", f"sampler.{name}", f"give a number in [1, {most:g}]")

    def batches(self, prompt_lengths: Sequence[int], decoding: SampleConfig) -> list[list[int]]:
        """As many prompts as ``batch`` and ``batch_tokens`` allow, one at least; see :meth:`Sampler.batches`.

        Prompts of like length share a batch, so that little padding is computed; the longest first, so that memory
        that does not suffice is found out at once.
        """
        order = sorted(range(len(prompt_lengths)), key=lambda i: (-prompt_lengths[i], i))
        batches: list[list[int]] = []
        start = 0
        while start < len(order):
            of_row = prompt_lengths[order[start]] + decoding.max_new_tokens
            together = max(1, min(self.batch, self.batch_tokens // of_row) // decoding.n)
            batches.append(order[start : start + together])
            start += together
        return batches

    @contextlib.contextmanager
    def open(self, job: SamplingJob) -> Iterator[Draw]:
        """See :meth:`Sampler.open`; raises as :func:`mpo.policy.pretrained.load_model`."""
        from mpo.policy.devices import join_group
        from mpo.policy.pretrained import load_model
        from mpo.sample.generation import Generation

        model = load_model(job.policy, job.revision, job.decoding.precision, job.trust_remote_code)
        model.to(join_group())
        yield Generation(model, job.decoding, job.stop_token_ids)
