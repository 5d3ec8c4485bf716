"""AlpacaEval 2 (arXiv 2404.04475): a judge compares answers to its instructions with reference answers. No torch.

The judge's prompt, the order of the two answers and the reading of verdicts are those of the package ``alpaca_eval``,
which :mod:`mpo.evaluate.alpaca_eval.annotators` runs.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from mpo.cache.artifacts import write_json
from mpo.endpoint import REQUEST_OPTIONS, check_key
from mpo.errors import ConfigError, DataError, cut
from mpo.evaluate.alpaca_eval.options import KEY, Options
from mpo.evaluate.base import Evidence
from mpo.evaluate.benchmark import Benchmark
from mpo.evaluate.questions import Answer, Decoding, Question, Run, by_run, check_questions, decodings
from mpo.evaluate.records import Findings

VERSION = "0.6.6"
ANNOTATIONS_FILE, RECORD_FILE = "annotations.json", "alpaca_eval.json"


@dataclass(frozen=True)
class AlpacaEval(Options, Benchmark):
    """Win rate and length-controlled win rate against reference answers, and length, at each temperature."""

    files: ClassVar[frozenset[str]] = frozenset({"reference", "annotator", "length_data"})
    change_nothing: ClassVar[frozenset[str]] = REQUEST_OPTIONS

    def __post_init__(self) -> None:
        super().__post_init__()
        self.decodings()

    def check(self) -> None:
        """See :meth:`Measure.check`."""
        try:
            found = importlib.metadata.version("alpaca_eval")
        except importlib.metadata.PackageNotFoundError:
            found = None
        if found != VERSION:
            what = "the package alpaca_eval is not there" if found is None else f"alpaca_eval {found} is installed"
            raise ConfigError(what, KEY, f"pip install alpaca-eval=={VERSION} 'setuptools<81'")
        if importlib.util.find_spec("pkg_resources") is None:
            raise ConfigError("alpaca_eval imports pkg_resources, which is not there", KEY, "install 'setuptools<81'")
        self.configuration()
        if self.length_data is not None and not Path(self.length_data).expanduser().is_file():
            what = f"there is no file '{self.length_data}'"
            raise ConfigError(what, f"{KEY}.length_data", "give the path of df_gamed.csv, or leave it out")
        rows = self.rows()
        if rows[0]["generator"] == self.name:
            what = f"the reference answers are by '{self.name}' too"
            raise ConfigError(what, f"{KEY}.name", "give the policy another name")
        check_key(KEY, self.url, self.key_variable)

    def rows(self) -> list[dict[str, Any]]:
        """The reference's records in their order, with ``instruction``, ``output``, ``generator`` and ``dataset``.

        Raises:
            DataError: the file is not there, is another one, or has an instruction twice.
        """
        where = Path(self.reference).name
        try:
            rows = json.loads(Path(self.reference).expanduser().read_text(encoding="utf-8"))
        except OSError as error:
            what = f"'{self.reference}' cannot be read: {error.strerror or error}"
            raise DataError(what, f"{KEY}.reference", "give the path of the reference's model_outputs.json") from None
        except ValueError as error:
            raise DataError(f"not JSON: {error}", where, "give the package's model_outputs.json") from None
        if not isinstance(rows, list) or not rows:
            raise DataError("no list of records", where, "give the package's model_outputs.json")
        names: set[str] = set()
        first_row: dict[str, int] = {}
        for number, row in enumerate(rows, start=1):
            for key in ("instruction", "output", "generator"):
                if not isinstance(row, dict) or not isinstance(row.get(key), str) or (key != "output" and not row[key]):
                    raise DataError(f"no text as {key}", f"{where}:row {number}", "give the package's file, unchanged")
            if (before := first_row.setdefault(row["instruction"], number)) != number:
                what = f"the instruction of row {before} again: {cut(row['instruction'], 60)!r}"
                raise DataError(what, f"{where}:row {number}", "give each instruction once, judges pair by it")
            names.add(row["generator"])
        if len(names) > 1:
            raise DataError(f"answers by {len(names)} generators", where, "give the answers of one")
        kept = ("instruction", "output", "generator", "dataset")
        return [{key: row[key] for key in kept if isinstance(row.get(key), str)} for row in rows]

    def questions(self) -> list[Question]:
        """See :meth:`Benchmark.questions`; the id is the row, from 1."""
        rows = enumerate(self.rows(), start=1)
        found = [Question(str(number), (row["instruction"],), row.get("dataset", "")) for number, row in rows]
        check_questions(found, Path(self.reference).name)
        return found

    def decodings(self) -> list[Decoding]:
        """See :meth:`Benchmark.decodings`."""
        return decodings(self.temperatures, self.top_p, self.max_new_tokens, self.seeds, KEY)

    def measure(self, evidence: Evidence) -> Findings:
        """See :meth:`Measure.measure`; raises as :func:`mpo.evaluate.alpaca_eval.annotators.annotate`."""
        from mpo.evaluate.alpaca_eval.annotators import annotate, package_length_control  # seconds of imports
        from mpo.evaluate.alpaca_eval.report import findings

        assert evidence.output is not None
        rows = self.rows()
        outputs = {
            run: [
                {**row, "output": text, "generator": self.name_at(run[0])}
                for row, text in zip(rows, texts, strict=True)
            ]
            for run, texts in _texts(evidence.answers, len(rows)).items()
        }
        judged = annotate(self, rows, outputs, evidence)
        annotations = [
            {**row, "temperature": run[0], "seed": run[1]}
            for run, records in judged.annotations.items()
            for row in records
        ]
        write_json(evidence.output / ANNOTATIONS_FILE, annotations)
        controlled = None
        if self.length_data is not None:
            controlled = package_length_control(Path(self.length_data).expanduser(), judged.annotations)
        record = {
            "alpaca_eval": VERSION,
            "judge": self.judge,
            "asked as": judged.asked_as,
            "reference": rows[0]["generator"],
            "instructions": len(rows),
            "length control": "the project's own" if controlled is None else f"alpaca_eval {VERSION}",
            "missing": judged.missing,
            "reasons": dict(judged.reasons),
        }
        write_json(evidence.output / RECORD_FILE, record)
        if judged.missing:
            why = ", ".join(f"{count} {reason}" for reason, count in judged.reasons.items())
            every = len(annotations)
            evidence.warn(f"{judged.missing} of {every} pairs have no verdict and are left out ({why or 'unreadable'})")
        names = {temperature: self.name_at(temperature) for temperature in self.temperatures}
        return findings(evidence.output / ANNOTATIONS_FILE, names, self.questions(), controlled)

    def name_at(self, temperature: float) -> str:
        """The policy's name in annotations; several temperatures are several models there."""
        return self.name if len(self.temperatures) == 1 else f"{self.name}@{temperature:g}"


def _texts(answers: Sequence[Answer], count: int) -> dict[Run, list[str]]:
    """Of each run in the reference's order; raises DataError where an answer is missing."""
    wanted = [str(number) for number in range(1, count + 1)]
    found = {}
    for run, given in by_run(answers).items():
        texts = {each.question_id: each.turns[0] for each in given}
        if sorted(texts) != sorted(wanted):
            what = f"{len(texts)} answers at temperature {run[0]:g}, seed {run[1]}, for {count} instructions"
            raise DataError(what, f"{KEY}.reference", "give the file that the policy has answered")
        found[run] = [texts[each] for each in wanted]
    return found
