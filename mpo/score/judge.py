"""What LLM judges have in common: their options, and questions to chat servers that end in a verdict. No torch."""

from __future__ import annotations

import contextlib
import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

from mpo.endpoint import Endpoint, check_servers
from mpo.errors import ConfigError, DataError, cut
from mpo.score.base import Scorer, check_score_name
from mpo.score.judge_prompt import check_prompt
from mpo.score.verdicts import Verdict, Verdicts

LEAST_MASS = 0.9
UNSURE = f"less than {LEAST_MASS} of the judge's probability is on verdicts"
NO_LOGPS = "the judge's answer has no log-probs for its verdict, which counts as written"
SHOWN = 100


@dataclass(frozen=True)
class Judge(Scorer):
    """Asks a language model behind servers of OpenAI's chat API, each in turn, many requests at once.

    Every question is one user turn, answered at temperature 0. An answer without a verdict is shown to the judge with
    the request to answer in the wanted form; if no answer has one, the stage stops: a score in its place would be made
    up. Nothing is cut to the judge's context; a server refuses what is too long.

    Args:
        urls: addresses of servers, e.g. ``http://localhost:8000/v1``.
        model: name under which they serve the judge.
        name: under which the scores are kept.
        criteria: what the judge is to look at, for ``{criteria}`` in ``prompt``.
        prompt: the question, with fields in braces.
        top_logprobs: alternatives of each token whose log-probs are asked for; 0 where a server gives none.
        max_answer_tokens: of an answer, thinking included.
        key_variable: environment variable that holds the servers' key.
        concurrency: requests to a server at once, of each of the launcher's processes.
        timeout_s: seconds that an answer may take.
        attempts: how often a request is sent before its failure stops the stage; also how many answers may lack a
            verdict.

    Raises:
        ConfigError: a number out of range, an address that is none or holds a secret, a prompt that lacks a field.
    """

    urls: list[str]
    model: str
    name: str
    criteria: str
    prompt: str
    top_logprobs: int = 20
    max_answer_tokens: int = 16
    key_variable: str = "OPENAI_API_KEY"
    concurrency: int = 16
    timeout_s: float = 600.0
    attempts: int = 5

    replicated: ClassVar[bool] = True
    change_no_score: ClassVar[frozenset[str]] = frozenset(
        {"urls", "key_variable", "concurrency", "timeout_s", "attempts"}
    )
    fields: ClassVar[tuple[str, ...]] = ()
    """What a prompt must have in braces."""

    def __post_init__(self) -> None:
        check_servers("score", self.urls, self.concurrency, self.timeout_s, self.attempts)
        check_score_name(self.name)
        if not self.model:
            raise ConfigError("has no value", "score.model", "give the name under which the servers serve the judge")
        if not 0 <= self.top_logprobs <= 20:
            raise ConfigError(f"{self.top_logprobs} is out of range", "score.top_logprobs", "give 0 to 20")
        if self.max_answer_tokens < 1:
            what = f"{self.max_answer_tokens} is out of range"
            raise ConfigError(what, "score.max_answer_tokens", "give 1 or more")
        check_prompt(self.prompt, self.fields)

    def ask(self, prompts: Sequence[str], verdicts: Verdicts, form: str, logprobs: bool) -> list[Verdict]:
        """The judge's verdict on each prompt, in order.

        Args:
            form: of an answer, for a judge that has not kept to it.
            logprobs: whether to ask for them.

        Raises:
            ConfigError: a server serves another model, or refuses the request.
            ProcessError: it fails over and over.
            DataError: no answer has a verdict, or an answer is none of the chat API.
        """
        asking = self._asking
        turn = itertools.cycle(asking.served.items())
        shown = {"logprobs": True, "top_logprobs": self.top_logprobs} if logprobs else {}

        def judged(end: Endpoint, model: str, prompt: str) -> Verdict:
            body = {"model": model, "temperature": 0.0, "max_tokens": self.max_answer_tokens, **shown}
            return _verdict(end, body, prompt, verdicts, form, self.attempts)

        asked = [asking.workers.submit(judged, *next(turn), prompt) for prompt in prompts]
        try:
            return [each.result() for each in asked]
        except BaseException:  # also a request to stop: what waits in the queue need not be asked first
            asking.workers.shutdown(cancel_futures=True)
            raise

    def reasons(self, verdict: Verdict, logprobs: bool) -> list[str]:
        """What a response with this verdict is warned of; ``logprobs``: they were asked for."""
        if verdict.mass is None:
            return [NO_LOGPS] if logprobs else []
        return [UNSURE] if verdict.mass < LEAST_MASS else []

    def take_warnings(self) -> dict[str, int]:
        """See :meth:`Scorer.take_warnings`."""
        found = dict(self._counts)
        self._counts.clear()
        return found

    def close(self) -> None:
        """Close the connections."""
        if (asking := self.__dict__.pop("_asking", None)) is not None:
            asking.stack.close()

    @cached_property
    def _counts(self) -> Counter[str]:
        return Counter()

    @cached_property
    def _asking(self) -> _Asking:
        with contextlib.ExitStack() as stack:
            ends = [
                stack.enter_context(Endpoint(url, self.key_variable, self.timeout_s, self.attempts, "score"))
                for url in self.urls
            ]
            served = {end: _served(end, self.model) for end in ends}
            workers = stack.enter_context(ThreadPoolExecutor(self.concurrency * len(ends)))
            return _Asking(served, workers, stack.pop_all())


@dataclass(frozen=True)
class _Asking:
    """Open connections. ``served``: the judge's name by server."""

    served: dict[Endpoint, str]
    workers: ThreadPoolExecutor
    stack: contextlib.ExitStack


def _served(end: Endpoint, model: str) -> str:
    cards = end.cards()
    for card in cards:
        if model in (card.get("id"), card.get("root")):
            return str(card["id"])
    named = ", ".join(str(card.get("id")) for card in cards) or "no model"
    raise ConfigError(f"{end.url} serves {cut(named, SHOWN)}, not {model}", "score.model", "name one that it serves")


def _verdict(
    end: Endpoint, body: Mapping[str, Any], prompt: str, verdicts: Verdicts, form: str, attempts: int
) -> Verdict:
    question = {"role": "user", "content": prompt}
    messages, said, ended = [question], "", ""
    for _ in range(attempts):
        answer = end.post("chat/completions", {**body, "messages": messages})
        try:
            (choice,) = answer["choices"]
            said = choice["message"]["content"] or ""
            ended = str(choice.get("finish_reason"))
            tokens = (choice.get("logprobs") or {}).get("content") or []
            verdict = verdicts.read(said, tokens)
        except (KeyError, TypeError, ValueError, AttributeError):
            what = f"{end.url} answered what is no answer of the chat API: {cut(str(answer), SHOWN)}"
            raise DataError(what, "score.urls", "name a server of OpenAI's chat API") from None
        if verdict is not None:
            return verdict
        # At temperature 0 the same question would mostly have the same answer.
        reminder = {"role": "user", "content": form}
        messages = [question, {"role": "assistant", "content": said}, reminder] if said.strip() else [question]
    what = f"the judge gave no verdict in {attempts} answers; the last one: {cut(repr(said), SHOWN)}"
    if ended == "length":
        raise DataError(f"{what}, where its tokens ended", "score.max_answer_tokens", "give more")
    raise DataError(what, "score.prompt", "ask for it more clearly, or take another judge")
