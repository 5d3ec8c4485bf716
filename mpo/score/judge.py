"""What LLM judges have in common: their options, and questions that end in a verdict. No torch."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from mpo.config.files import is_local
from mpo.config.training import Precision
from mpo.endpoint import Endpoint, check_servers
from mpo.engine import check_installed
from mpo.errors import ConfigError, DataError, cut
from mpo.plain import to_plain
from mpo.score.base import Scorer, check_score_name
from mpo.score.chat import Answer, Chat, Refused
from mpo.score.judge_prompt import check_prompt
from mpo.score.model_folder import read_model_config
from mpo.score.verdicts import READING, NoVerdict, Verdict, Verdicts
from mpo.types import Message

LEAST_MASS = 0.9
UNSURE = f"less than {LEAST_MASS} of the judge's probability is on verdicts"
NO_LOGPS = "the judge's answer has no log-probs for its verdict, which counts as written"
SHOWN = 100
AT_ONCE = 512
"""Questions that are asked, and asked again where an answer has no verdict, before the next ones."""
REFUSED, CUT_OFF, EMPTY, OTHERWISE = (
    "the question was refused",
    "the answer was cut at max_answer_tokens",
    "the answer was empty",
    "the answer has no verdict",
)
"""Reasons of a question without verdict."""


@dataclass(frozen=True)
class Judge(Scorer):
    """Asks a language model, behind servers of OpenAI's chat API or loaded with vLLM in this process.

    Every question is one user turn, answered at temperature 0. An answer without a verdict is shown to the judge with
    the request to answer in the wanted form; if no answer has one, scoring stops: a score in its place would be made
    up. Nothing is cut to the judge's context; what is too long is refused.

    Args:
        name: under which the scores are kept.
        criteria: what the judge is to look at, for ``{criteria}`` in ``prompt``.
        prompt: the question, with fields in braces.
        urls: addresses of servers, e.g. ``http://localhost:8000/v1``, asked in turn.
        model: name under which they serve the judge.
        path: or the judge itself, a folder or hub name, for an engine in this process.
        revision: of a hub name.
        precision: of its weights.
        context_tokens: most tokens of a question with its answer, of the engine.
        tensor_parallel: cards that share the engine's model.
        gpu_memory: share of a card's memory that the engine takes.
        top_logprobs: alternatives of each token whose log-probs are asked for; 0 where a server gives none.
        max_answer_tokens: of an answer, thinking included.
        key_variable: environment variable that holds the servers' key.
        concurrency: requests to a server at once, of each of the launcher's processes.
        timeout_s: seconds that an answer may take.
        attempts: how often a request is sent before its failure stops the stage; also how many answers may lack a
            verdict.

    Raises:
        ConfigError: a number out of range, an address that is none or holds a secret, a prompt that lacks a field,
            neither servers nor a path, or both.
    """

    name: str
    criteria: str
    prompt: str
    urls: list[str] = field(default_factory=list)
    model: str | None = None
    path: str | None = None
    revision: str | None = None
    precision: Precision = Precision.bf16
    context_tokens: int = 8192
    tensor_parallel: int = 1
    gpu_memory: float = 0.9
    top_logprobs: int = 20
    max_answer_tokens: int = 16
    key_variable: str = "OPENAI_API_KEY"
    concurrency: int = 16
    timeout_s: float = 600.0
    attempts: int = 5

    replicated: ClassVar[bool] = True
    change_no_score: ClassVar[frozenset[str]] = frozenset(
        {"urls", "key_variable", "concurrency", "timeout_s", "attempts", "gpu_memory"}
    )
    fields: ClassVar[tuple[str, ...]] = ()
    """What a prompt must have in braces."""

    def __post_init__(self) -> None:
        if self.path is None:
            self._check_servers()
        else:
            self._check_engine()
        check_score_name(self.name)
        if not 0 <= self.top_logprobs <= 20:
            raise ConfigError(f"{self.top_logprobs} is out of range", "score.top_logprobs", "give 0 to 20")
        if self.attempts < 1:
            raise ConfigError(f"{self.attempts} is out of range", "score.attempts", "give 1 or more")
        if self.max_answer_tokens < 1:
            what = f"{self.max_answer_tokens} is out of range"
            raise ConfigError(what, "score.max_answer_tokens", "give 1 or more")
        check_prompt(self.prompt, self.fields)

    def _check_servers(self) -> None:
        if not self.urls:
            remedy = "give addresses: 'score.urls=[http://localhost:8000/v1]', or the judge itself: score.path=…"
            raise ConfigError("has no value", "score.urls", remedy)
        check_servers("score", self.urls, self.concurrency, self.timeout_s, self.attempts)
        if not self.model:
            raise ConfigError("has no value", "score.model", "give the name under which the servers serve the judge")

    def _check_engine(self) -> None:
        if self.urls or self.model:
            key = "urls" if self.urls else "model"
            raise ConfigError("a judge of a path is loaded, not served", f"score.{key}", "leave it out, or score.path")
        for key, least in (("context_tokens", self.max_answer_tokens + 1), ("tensor_parallel", 1)):
            if getattr(self, key) < least:
                raise ConfigError(f"{getattr(self, key)} is too few", f"score.{key}", f"give at least {least}")
        if not 0 < self.gpu_memory <= 1:
            raise ConfigError(f"{self.gpu_memory} is out of range", "score.gpu_memory", "give a share in (0, 1]")

    def check(self) -> None:
        """Raise ConfigError for a folder without a model, or without vLLM; a hub's files are looked at when loaded."""
        if self.path is None:
            return
        check_installed("score.path", "score.urls and score.model of a server")
        config = read_model_config(self.path)
        limit = None if config is None else config.get("max_position_embeddings")
        if isinstance(limit, int) and self.context_tokens > limit:
            what = f"{self.context_tokens} is beyond the judge's {limit} positions"
            raise ConfigError(what, "score.context_tokens", f"give at most {limit}")

    @property
    def judge_name(self) -> str:
        """The model that judges, as it is served or loaded."""
        return str(self.path or self.model)

    @property
    def asked_as(self) -> dict[str, Any]:
        """What decides a verdict beside the question; of a folder also which files it holds now."""
        left_out = {*self.change_no_score, "name", "criteria", "prompt", "tensor_parallel"}
        chosen = {each.name: to_plain(getattr(self, each.name)) for each in fields(self) if each.name not in left_out}
        folder = Path(self.path).expanduser() if self.path is not None and is_local(self.path) else None
        files = [] if folder is None else sorted(one for one in folder.rglob("*") if one.is_file())
        marks = [[one.name, one.stat().st_size, one.stat().st_mtime_ns] for one in files]
        return {**chosen, "files": marks, "reading": READING}

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
        found: dict[int, Verdict] = {}
        with contextlib.closing(self.verdicts_on(prompts, verdicts, form, logprobs)) as asking:
            for place, verdict in asking:
                if isinstance(verdict, NoVerdict):
                    raise verdict.error
                found[place] = verdict
        return [found[place] for place in range(len(prompts))]

    def verdicts_on(
        self, prompts: Sequence[str], verdicts: Verdicts, form: str, logprobs: bool
    ) -> Generator[tuple[int, Verdict | NoVerdict], None, None]:
        """As :meth:`ask`, each beside its prompt's place as it comes; a prompt that is refused, or has no verdict
        after all attempts, stops nothing."""
        for start in range(0, len(prompts), AT_ONCE):
            waiting = {place: [Message("user", prompts[place])] for place in range(start, len(prompts))[:AT_ONCE]}
            for attempt in range(self.attempts):
                last, places = attempt == self.attempts - 1, list(waiting)
                asked = [waiting.pop(place) for place in places]
                top = self.top_logprobs if logprobs else 0
                for n, answer in self._chat.answers(asked, self.max_answer_tokens, top) if asked else ():
                    if isinstance(answer, Refused):
                        yield places[n], NoVerdict(REFUSED, answer.error)
                        continue
                    verdict = self._read(answer, verdicts)
                    if verdict is not None:
                        yield places[n], verdict
                    elif last:
                        yield places[n], _none(answer, self.attempts)
                    else:  # at temperature 0 the same question would mostly have the same answer
                        reminder = [Message("assistant", answer.text), Message("user", form)]
                        waiting[places[n]] = asked[n][:1] + (reminder if answer.text.strip() else [])

    def _read(self, answer: Answer, verdicts: Verdicts) -> Verdict | None:
        try:
            return verdicts.read(answer.text, answer.tokens)
        except (KeyError, TypeError, ValueError, AttributeError):
            what = f"log-probs that are no answer of the chat API: {cut(str(answer.tokens), SHOWN)}"
            raise DataError(what, "score.urls", "name a server of OpenAI's chat API") from None

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
        """Close the connections, or drop the model."""
        if (chat := self.__dict__.pop("_chat", None)) is not None:
            chat.close()

    @cached_property
    def _counts(self) -> Counter[str]:
        return Counter()

    @cached_property
    def _chat(self) -> Chat:
        if self.path is not None:
            from mpo.score.chat_engine import LoadedChat

            options = (self.precision, self.context_tokens, self.tensor_parallel, self.gpu_memory)
            return LoadedChat(self.path, self.revision, *options)
        from mpo.score.chat_server import ServedChat

        ends = [Endpoint(url, self.key_variable, self.timeout_s, self.attempts, "score") for url in self.urls]
        return ServedChat(ends, str(self.model), self.concurrency)


def _none(answer: Answer, attempts: int) -> NoVerdict:
    """What to say of a question whose last answer has no verdict either."""
    what = f"the judge gave no verdict in {attempts} answers; the last one: {cut(repr(answer.text), SHOWN)}"
    if answer.ended == "length":
        return NoVerdict(CUT_OFF, DataError(f"{what}, where its tokens ended", "score.max_answer_tokens", "give more"))
    error = DataError(what, "score.prompt", "ask for it more clearly, or take another judge")
    return NoVerdict(OTHERWISE if answer.text.strip() else EMPTY, error)
