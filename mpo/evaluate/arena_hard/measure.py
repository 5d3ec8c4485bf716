"""Arena-Hard v0.1 and v2.0 (arXiv 2406.11939): its own tool has a judge compare answers with a baseline's. No torch.

The prompts, the judge's settings and the baseline's answers are those of the user's checkout of the tool. Without one
the answers are written, and the run says what to do with them; judgments made elsewhere are read by ``judgments``.
"""

from __future__ import annotations

import shlex
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from mpo.cache.artifacts import write_json
from mpo.endpoint import check_requests, check_url
from mpo.errors import ConfigError, DataError
from mpo.evaluate.arena_hard.files import Judgment, Layout, check_alike, read_judgments, read_questions, write_answers
from mpo.evaluate.arena_hard.tool import Judge, Tool, command, find_tool, prepare, run_tool
from mpo.evaluate.base import Evidence
from mpo.evaluate.benchmark import Benchmark
from mpo.evaluate.questions import Answer, Decoding, Question, Run, by_run, decodings
from mpo.evaluate.records import Estimate, Findings
from mpo.plain import finite

KEY = "measure"
RECORD_FILE = "arena_hard.json"


@dataclass(frozen=True)
class ArenaHard(Benchmark):
    """Both of Arena-Hard's scores, and length, at each temperature.

    Args:
        question_file: the tool's question.jsonl; the one in ``tool`` where it is left out.
        benchmark: its name in the tool's folders.
        tool: folder of a checkout of arena-hard-auto, of 2024 or 2025.
        python: interpreter of an environment with what the tool imports.
        judge: name of the judge in the tool's files; that of its settings where it is left out.
        model: name under which the judge's server serves it, where it is another.
        url: address of the judge's server, OpenAI's chat API; OpenAI itself where it is left out.
        key_variable: environment variable that holds the server's key.
        judgments: folder of judgments that the tool has written elsewhere, ``model_judgment/JUDGE``, which are read
            instead of running it.
        name: of the policy in the tool's files.
        temperatures, seeds, top_p, max_new_tokens: how the questions are answered.
        concurrency: requests to the judge at once.
        attempts: how often the tool is run while judgments are missing.

    Raises:
        ConfigError: a number out of range, an address that is none or holds a secret, options that contradict.
    """

    question_file: str | None = None
    benchmark: str = "arena-hard-v0.1"
    tool: str | None = None
    python: str = "python"
    judge: str | None = None
    model: str | None = None
    url: str | None = None
    key_variable: str = "OPENAI_API_KEY"
    judgments: str | None = None
    name: str = "policy"
    temperatures: list[float] = field(default_factory=lambda: [0.0])
    seeds: list[int] = field(default_factory=lambda: [0])
    top_p: float = 1.0
    max_new_tokens: int = 4096
    concurrency: int = 16
    attempts: int = 3

    files: ClassVar[frozenset[str]] = frozenset({"question_file", "judgments"})
    change_nothing: ClassVar[frozenset[str]] = frozenset({"python", "url", "key_variable", "concurrency", "attempts"})

    def __post_init__(self) -> None:
        check_requests(KEY, self.concurrency, 1.0, self.attempts)
        if self.url is not None:
            check_url(self.url, f"{KEY}.url")
        for name in ("name", "benchmark"):
            value = getattr(self, name)
            if not value or "/" in value or value.startswith("."):
                raise ConfigError(f"{value!r} is no name of a file", f"{KEY}.{name}", "leave slashes out")
        if self.tool is not None and self.judgments is not None:
            what = "judgments that are there already, and a tool to make them"
            raise ConfigError(what, f"{KEY}.judgments", f"leave one of {KEY}.judgments and {KEY}.tool out")
        self.decodings()

    def check(self) -> None:
        """See :meth:`Measure.check`."""
        tool = self._tool()
        layout, questions = read_questions(self._questions())
        if tool is not None and tool.layout is not layout:
            what = f"the questions are of the layout of {layout.value}, the tool of {tool.layout.value}"
            raise ConfigError(what, f"{KEY}.question_file", "leave it out, or take the other version of the tool")
        if tool is not None and self.name in tool.baselines:
            raise ConfigError("the baseline has this name", f"{KEY}.name", "give the policy another")
        if self.judgments is not None:
            self._read(Path(self.judgments).expanduser(), self._runs(), questions)

    def questions(self) -> list[Question]:
        """See :meth:`Benchmark.questions`."""
        return read_questions(self._questions())[1]

    def decodings(self) -> list[Decoding]:
        """See :meth:`Benchmark.decodings`."""
        return decodings(self.temperatures, self.top_p, self.max_new_tokens, self.seeds, KEY)

    def measure(self, evidence: Evidence) -> Findings:
        """See :meth:`Measure.measure`; raises as :func:`mpo.evaluate.arena_hard.tool.run_tool`."""
        assert evidence.output is not None
        questions = self.questions()
        answered = by_run(evidence.answers)
        by_id = {one.id: one for one in questions}
        for layout in Layout:
            for run, answers in answered.items():
                file = self._answers(evidence.output, layout) / f"{self.name_at(run)}.jsonl"
                write_answers(file, layout, self.name_at(run), by_id, answers)
        judged = self._judge(evidence, questions, list(answered))
        lengths = [_length(self.benchmark, temperature, evidence.answers) for temperature in self.temperatures]
        if not judged:
            folder = self._answers(evidence.output, Layout.of_2025)
            words = shlex.join(command("python", "ARENA_HARD_AUTO"))
            evidence.warn(
                f"the answers are not judged: copy {folder} into the tool's data/{self.benchmark}, name them in its "
                f"settings and run {words}, then give what it writes: judgments=FOLDER; or give its folder: tool=FOLDER"
            )
            return Findings(lengths)
        from mpo.evaluate.arena_hard.report import report  # here: it leads to scipy

        made = report(self.benchmark, self.temperatures, judged, questions)
        missing = {"questions": made.asked, "judged": made.judged, "with two verdicts": made.whole}
        write_json(evidence.output / RECORD_FILE, finite({"scores": made.scores, **missing}))
        if made.gaps:
            evidence.warn(made.gaps)
        return Findings([*made.estimates, *lengths], by_prompt=made.by_prompt)

    def name_at(self, run: Run) -> str:
        """The policy's name in the tool's files, of one temperature and seed of those that there are."""
        several = len(self._runs()) > 1
        return f"{self.name}-t{run[0]:g}-s{run[1]}" if several else self.name

    def _runs(self) -> list[Run]:
        return [(how.temperature, seed) for how in self.decodings() for seed in how.seeds]

    def _answers(self, output: Path, layout: Layout) -> Path:
        return output / f"layout_of_{layout.value}" / "data" / self.benchmark / "model_answer"

    def _questions(self) -> Path:
        if self.question_file is not None:
            return Path(self.question_file).expanduser()
        if self.tool is None:
            remedy = f"give the tool's question.jsonl: {KEY}.question_file=FILE, or the tool: {KEY}.tool=FOLDER"
            raise ConfigError("neither questions nor the tool is given", KEY, remedy)
        return Path(self.tool).expanduser() / "data" / self.benchmark / "question.jsonl"

    def _tool(self) -> Tool | None:
        if self.tool is None:
            return None
        categories = list(dict.fromkeys(one.category for one in self.questions()))
        return find_tool(Path(self.tool).expanduser(), self.benchmark, categories)

    def _judge(
        self, evidence: Evidence, questions: Sequence[Question], runs: Sequence[Run]
    ) -> dict[Run, list[Judgment]]:
        """Judgments of every run of answers; none where there is neither a tool nor judgments."""
        if self.judgments is not None:
            return self._read(Path(self.judgments).expanduser(), runs, questions)
        tool = self._tool()
        if tool is None:
            return {}
        assert evidence.output is not None
        name = self.judge or tool.judge
        judge = Judge(name, self.model or name, self.url, self.key_variable, self.concurrency)
        work = evidence.output / f"layout_of_{tool.layout.value}"
        made = work / "data" / self.benchmark / "model_judgment" / name
        files = {self.name_at(run): made / f"{self.name_at(run)}.jsonl" for run in runs}
        prepare(tool, self.benchmark, self._questions(), list(files), judge, work)
        run_tool(tool, self.python, judge, work, files, len(questions), self.attempts)
        return self._read(made, runs, questions)

    def _read(self, folder: Path, runs: Sequence[Run], questions: Sequence[Question]) -> dict[Run, list[Judgment]]:
        found = {run: self._judged(folder / f"{self.name_at(run)}.jsonl", questions) for run in runs}
        check_alike(one for judgments in found.values() for one in judgments)
        return found

    def _judged(self, file: Path, questions: Sequence[Question]) -> list[Judgment]:
        if not file.is_file():
            what = f"there are no judgments of {file.stem}"
            raise DataError(what, file.name, "look at what the tool has printed")
        judgments = read_judgments(file)
        if strangers := {one.question_id for one in judgments} - {one.id for one in questions}:
            what = f"{len(strangers)} judgments are about other questions, such as {min(strangers)}"
            raise DataError(what, file.name, "give the judgments of these questions")
        return judgments


def _length(benchmark: str, temperature: float, answers: Sequence[Answer]) -> Estimate:
    from mpo.evaluate.estimates import mean_over_prompts  # here: it leads to scipy

    lengths: dict[str, list[int]] = defaultdict(list)
    for each in answers:
        if each.temperature == temperature:
            lengths[each.question_id].append(sum(map(len, each.turns)))
    mean = mean_over_prompts([sum(each) / len(each) for each in lengths.values()])
    return Estimate("length", mean.value, mean.standard_error, mean.count, "characters", benchmark, temperature)
