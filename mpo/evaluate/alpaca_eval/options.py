"""Options of AlpacaEval. No torch."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass, field
from pathlib import Path

from mpo.endpoint import OPENAI, check_requests, check_url
from mpo.errors import ConfigError

KEY = "measure"


@dataclass(frozen=True)
class Options:
    """Which instructions are answered, how, and who compares the answers.

    Args:
        reference: file of the instructions with reference answers: a JSON list of records with ``instruction``,
            ``output`` and ``generator``, the package's model_outputs.json.
        annotator: a configuration of the package by its name, or a folder with a configs.yaml of your own.
        url: address of the judge's server, OpenAI's chat API. Annotators that use another API ask it themselves.
        model: name under which the server serves the judge, where it is not the annotator's.
        key_variable: environment variable that holds the server's key.
        length_data: the package's df_gamed.csv, for its length control; without it the project's own is taken.
        name: of the policy in the annotations.
        temperatures, seeds, top_p, max_new_tokens: how the instructions are answered.
        concurrency: requests to the judge at once.
        timeout_s: seconds that an answer may take.
        attempts: how often a request is sent before it is missing.

    Raises:
        ConfigError: a number out of range, an address that is none or holds a secret.
    """

    reference: str
    annotator: str = "weighted_alpaca_eval_gpt4_turbo"
    url: str = OPENAI
    model: str | None = None
    key_variable: str = "OPENAI_API_KEY"
    length_data: str | None = None
    name: str = "policy"
    temperatures: list[float] = field(default_factory=lambda: [0.0])
    seeds: list[int] = field(default_factory=lambda: [0])
    top_p: float = 1.0
    max_new_tokens: int = 2048
    concurrency: int = 16
    timeout_s: float = 120.0
    attempts: int = 6

    def __post_init__(self) -> None:
        check_url(self.url, f"{KEY}.url")
        check_requests(KEY, self.concurrency, self.timeout_s, self.attempts)

    @property
    def judge(self) -> str:
        """Its name in estimates and annotations."""
        annotator = Path(self.annotator).name
        return annotator if self.model is None else f"{annotator} with {Path(self.model).name}"

    def configuration(self) -> Path:
        """The annotator's configs.yaml; raises ConfigError where there is none."""
        spec = importlib.util.find_spec("alpaca_eval")
        (package, *_) = (spec and spec.submodule_search_locations) or [""]
        for folder in (Path(self.annotator).expanduser(), Path(package) / "evaluators_configs" / self.annotator):
            if (folder / "configs.yaml").is_file():
                return folder / "configs.yaml"
        what = f"'{self.annotator}' is no annotator of alpaca_eval, nor a folder with a configs.yaml"
        raise ConfigError(what, f"{KEY}.annotator", "name one of its evaluators_configs, or a folder of your own")
