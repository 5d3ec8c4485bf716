"""Responses drawn by vLLM servers that are running already: token ids in, token ids out. No torch."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from mpo.endpoint import Endpoint, check_servers
from mpo.errors import ConfigError, DataError, cut
from mpo.sample.base import SIGNED_SEEDS, Draw, Drawn, Request, Sampler, SamplingJob


@dataclass(frozen=True)
class ServerSampler(Sampler):
    """Asks servers that serve the policy, each in turn, many requests at once.

    A server must serve the run's policy under its name or path (``vllm serve NAME``); one that serves something else is
    refused. What the model's generation config says is not applied: a request states temperature, top-p, the limit of
    tokens and the run's stop ids.

    Args:
        urls: addresses of servers, e.g. ``http://localhost:8000/v1``.
        model: name under which they serve the policy, where that is not its path or hub name.
        key_variable: environment variable that holds their key.
        concurrency: requests to a server at once.
        timeout_s: seconds that a response may take.
        attempts: how often a request is sent before its failure stops the stage.

    Raises:
        ConfigError: a number out of range, an address that is none or holds a secret.
    """

    urls: list[str] = field(default_factory=list)
    model: str | None = None
    key_variable: str = "OPENAI_API_KEY"
    concurrency: int = 64
    timeout_s: float = 600.0
    attempts: int = 5

    requests_at_once: ClassVar[int] = 256
    loads_policy: ClassVar[bool] = False
    checks_weights: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_servers("sampler", self.urls, self.concurrency, self.timeout_s, self.attempts)

    @contextlib.contextmanager
    def open(self, job: SamplingJob) -> Iterator[Draw]:
        """See :meth:`Sampler.open`; raises ConfigError for a server of another model."""
        with contextlib.ExitStack() as stack:
            ends = [
                stack.enter_context(Endpoint(url, self.key_variable, self.timeout_s, self.attempts, "sampler"))
                for url in self.urls
            ]
            served = {end.url: _served(end, job.policy, self.model) for end in ends}
            for end in ends:
                if job.canary is not None:
                    found = _prompt_logps(end, served[end.url], job.canary.token_ids)
                    job.canary.check(found, job.decoding.precision, end.url)
            workers = stack.enter_context(ThreadPoolExecutor(self.concurrency * len(ends)))

            def draw(requests: Sequence[Request]) -> list[list[Drawn]]:
                turn = itertools.cycle(ends)

                def ask(prompt_ids: Sequence[int], seed: int) -> Future[Drawn]:
                    end = next(turn)
                    return workers.submit(_draw, end, served[end.url], prompt_ids, seed, job)

                asked = [[ask(request.prompt_ids, seed) for seed in request.seeds] for request in requests]
                try:
                    return [[one.result() for one in of_request] for of_request in asked]
                except BaseException:  # also a request to stop: what waits in the queue need not be drawn first
                    workers.shutdown(cancel_futures=True)
                    raise

            yield draw


def _served(end: Endpoint, policy: str, wanted: str | None) -> str:
    """The name under which the server serves ``policy``, or ``wanted``."""
    found = end.cards()
    for card in found:
        names = {str(card[key]) for key in ("id", "root") if card.get(key)}
        if wanted in names if wanted is not None else any(_same(name, policy) for name in names):
            return str(card["id"])
    named = ", ".join(str(card.get("root") or card.get("id")) for card in found) or "no model"
    what = f"{end.url} serves {named}, not {wanted or policy}"
    raise ConfigError(
        what, "sampler", "serve the policy there (vllm serve), or take sampler=vllm, which loads it itself"
    )


def _same(name: str, policy: str) -> bool:
    if name == policy:
        return True
    one, other = Path(name), Path(policy)
    return one.exists() and other.exists() and one.samefile(other)


def _prompt_logps(end: Endpoint, model: str, ids: Sequence[int]) -> list[float]:
    """Log-probs of all tokens but the first."""
    body = {"model": model, "prompt": list(ids), "max_tokens": 1, "prompt_logprobs": 0, "return_token_ids": True}
    answer = end.post("completions", body)
    try:
        (choice,) = answer["choices"]
        positions = choice["prompt_logprobs"][1:]
        return [float(at[str(index)]["logprob"]) for index, at in zip(ids[1:], positions, strict=True)]
    except (AttributeError, KeyError, TypeError, ValueError):
        raise DataError(
            f"{end.url} answered without log-probs of the prompt: {cut(str(answer), 100)}", "sampler",
            "serve it with vLLM 0.11 or newer",
        ) from None  # fmt: skip


def _draw(end: Endpoint, model: str, prompt_ids: Sequence[int], seed: int, job: SamplingJob) -> Drawn:
    how = job.decoding
    answer = end.post(
        "completions",
        {
            "model": model,
            "prompt": list(prompt_ids),
            "seed": seed % SIGNED_SEEDS,
            "temperature": how.temperature,
            "top_p": how.top_p,
            "top_k": -1,
            "min_p": 0.0,
            "repetition_penalty": 1.0,
            "presence_penalty": 0.0,
            "frequency_penalty": 0.0,
            "max_tokens": how.max_new_tokens,
            "stop_token_ids": list(job.stop_token_ids),
            "ignore_eos": True,  # the run's stop ids alone end a response
            "logprobs": 0,  # of the drawn token alone
            "return_token_ids": True,
            "skip_special_tokens": False,
        },
    )
    try:
        (choice,) = answer["choices"]
        ids = choice["token_ids"]
        logps = choice["logprobs"]["token_logprobs"]
        prompt = choice.get("prompt_token_ids")
    except (KeyError, TypeError, ValueError):
        raise DataError(
            f"{end.url} answered without token ids or log-probs: {cut(str(answer), 100)}", "sampler",
            "serve it with vLLM 0.11 or newer",
        ) from None  # fmt: skip
    if prompt is not None and list(prompt) != list(prompt_ids):
        raise DataError(f"{end.url} has changed the prompt's tokens", "sampler", "serve the policy itself, unchanged")
    return Drawn(ids, bool(ids) and ids[-1] in job.stop_token_ids, logps)
