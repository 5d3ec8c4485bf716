"""Options of MT-Bench. No torch."""

from __future__ import annotations

from dataclasses import dataclass, field

from mpo.endpoint import OPENAI, check_requests, check_url
from mpo.errors import ConfigError


@dataclass(frozen=True)
class Options:
    """Which questions are asked, how they are answered, and who grades the answers.

    Args:
        question_file: FastChat's question.jsonl.
        references: FastChat's reference_answer/gpt-4.jsonl; None for questions that need none.
        prompts: FastChat's judge_prompts.jsonl; None for the project's own, whose scores are another measurement.
        model: name under which the judge's server serves it.
        url: the server's address, OpenAI's chat API.
        key_variable: environment variable that holds the server's key.
        name: of the policy in FastChat's files.
        against_start: whether the starting policy is judged too.
        seeds: an answer each; at temperature 0 they are the same.
        top_p, max_new_tokens: of each turn's answer; temperatures are FastChat's by category.
        max_judge_tokens: of the judge's answer.
        retries: how often the judge is asked again whose answer has no score.
        concurrency: requests at once.
        timeout_s: seconds that an answer may take.
        attempts: how often a request is sent before it is missing.

    Raises:
        ConfigError: a number out of range, an address that is none or holds a secret, no judge.
    """

    question_file: str
    model: str
    references: str | None = None
    prompts: str | None = None
    url: str = OPENAI
    key_variable: str = "OPENAI_API_KEY"
    name: str = "policy"
    against_start: bool = False
    seeds: list[int] = field(default_factory=lambda: [0])
    top_p: float = 1.0
    max_new_tokens: int = 1024
    max_judge_tokens: int = 2048
    retries: int = 2
    concurrency: int = 16
    timeout_s: float = 120.0
    attempts: int = 6

    def __post_init__(self) -> None:
        check_url(self.url, "measure.url")
        check_requests("measure", self.concurrency, self.timeout_s, self.attempts)
        for name, least in (("max_judge_tokens", 1), ("retries", 0)):
            if getattr(self, name) < least:
                raise ConfigError(f"{getattr(self, name)} is out of range", f"measure.{name}", f"give {least} or more")
        for name in ("model", "name"):
            if not getattr(self, name):
                raise ConfigError("has no value", f"measure.{name}", "give a name")
