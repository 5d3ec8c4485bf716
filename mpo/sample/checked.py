"""What a sampler says and returns, looked at before anything relies on it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mpo.config.schema import SampleConfig
from mpo.errors import DataError, cut
from mpo.failures.user_code import user_code
from mpo.sample.base import Draw, Drawn, Request, Sampler, SamplingJob

WHERE = "sampler"


@dataclass(frozen=True, slots=True)
class Bounds:
    """What can be drawn: at most ``max_new_tokens`` ids below ``vocabulary``, of ``stop_token_ids`` the last alone."""

    vocabulary: int
    max_new_tokens: int
    stop_token_ids: frozenset[int]


def check_sampler(sampler: Sampler) -> None:
    """What the sampler itself finds wrong, before anything is sampled; raises ConfigError."""
    with user_code(sampler.source, _name(sampler), WHERE):
        sampler.check()


def checked_batches(sampler: Sampler, prompt_lengths: Sequence[int], decoding: SampleConfig) -> list[list[int]]:
    """The sampler's batches of requests.

    Raises:
        ConfigError: the sampler's code raised something.
        DataError: a request is in no batch, or in several.
    """
    with user_code(sampler.source, _name(sampler), WHERE):
        batches = [list(batch) for batch in sampler.batches(prompt_lengths, decoding)]
    if sorted(position for batch in batches for position in batch) != list(range(len(prompt_lengths))):
        what = f"{_name(sampler)} has batches that do not hold each of {len(prompt_lengths)} requests once"
        raise DataError(what, WHERE, "return each position in one batch")
    return batches


@contextlib.contextmanager
def opened(sampler: Sampler, job: SamplingJob, bounds: Bounds) -> Iterator[Draw]:
    """What draws with the sampler, which is opened at the first call, and closed at the end if there was one.

    A call raises ConfigError for what the sampler's code raises, and DataError for responses that cannot have been
    drawn: of another number than was asked for, of ids or lengths out of bounds, finished without a stop token.
    """
    draw: Draw | None = None
    with contextlib.ExitStack() as stack:

        def checked(requests: Sequence[Request]) -> list[list[Drawn]]:
            nonlocal draw
            with user_code(sampler.source, _name(sampler), WHERE):
                if draw is None:
                    draw = stack.enter_context(sampler.open(job))
                found = draw(requests)
            return _responses(sampler, requests, found, bounds)

        try:
            yield checked
        finally:
            with user_code(sampler.source, _name(sampler), WHERE):
                stack.close()


def _name(sampler: Sampler) -> str:
    return type(sampler).__name__


def _responses(sampler: Sampler, requests: Sequence[Request], found: Any, bounds: Bounds) -> list[list[Drawn]]:
    _check_count(sampler, found, len(requests), "requests", "one list per request")
    for request, of_request in zip(requests, found, strict=True):
        _check_count(sampler, of_request, len(request.seeds), "seeds", "one Drawn per seed")
    return [[_response(sampler, each, bounds) for each in of_request] for of_request in found]


def _check_count(sampler: Sampler, found: Any, wanted: int, of: str, remedy: str) -> None:
    if not isinstance(found, Sequence) or len(found) != wanted:
        count = len(found) if isinstance(found, Sequence) else f"a {type(found).__name__}, not a list"
        raise DataError(f"{_name(sampler)} returned {count} for {wanted} {of}", WHERE, f"return {remedy}")


def _response(sampler: Sampler, one: Any, bounds: Bounds) -> Drawn:
    """The response in Python's own numbers; raises DataError for one that cannot have been drawn."""

    def refused(what: str, remedy: str) -> DataError:
        return DataError(f"{_name(sampler)} returned {what}", WHERE, remedy)

    if not isinstance(one, Drawn):
        raise refused(f"{cut(repr(one), 80)}, not a response", "return one Drawn per seed")
    ids_T, stops = np.asarray(one.token_ids), bounds.stop_token_ids
    if ids_T.ndim != 1 or (ids_T.size and ids_T.dtype.kind not in "iu"):
        raise refused(f"tokens {cut(repr(one.token_ids), 80)}", "return a list of whole numbers")
    ids = [int(index) for index in ids_T]
    outside = next((index for index in ids if not 0 <= index < bounds.vocabulary), None)
    if outside is not None:
        raise refused(f"token {outside} of a vocabulary of {bounds.vocabulary}", "return the policy's token ids")
    if len(ids) > bounds.max_new_tokens:
        raise refused(f"{len(ids)} tokens, at most {bounds.max_new_tokens} were asked for", "stop at max_new_tokens")
    if not stops.isdisjoint(ids[:-1]):
        raise refused("tokens after a stop token", "end a response with its first stop token")
    if bool(one.finished) != bool(ids and ids[-1] in stops):
        what = "a finished response without a stop token at its end" if one.finished else (
            "a response with a stop token at its end, not marked as finished"
        )  # fmt: skip
        raise refused(what, "finished says whether a stop token ended it, which is its last token")
    if one.token_logps is None:
        return Drawn(ids, bool(one.finished))
    try:
        logps_T = np.asarray(one.token_logps, dtype=np.float32)
    except (TypeError, ValueError):
        raise refused(f"log-probs {cut(repr(one.token_logps), 80)}", "return a number per token, or None") from None
    if logps_T.shape != (len(ids),):
        raise refused(f"log-probs of shape {logps_T.shape} for {len(ids)} tokens", "return one per token, or None")
    if not np.isfinite(logps_T).all():
        raise refused("log-probs that are not finite numbers", "return finite ones, or None")
    return Drawn(ids, bool(one.finished), logps_T.tolist())
