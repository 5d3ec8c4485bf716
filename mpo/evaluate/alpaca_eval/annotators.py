"""The package ``alpaca_eval``, run without the network's data and without what it keeps inside itself.

Judges of OpenAI's API are asked by this project's own client (retries, time limits, a key that is never written down).
"""

from __future__ import annotations

import contextlib
import json
import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import alpaca_eval.utils
import yaml
from alpaca_eval.annotators import PairwiseAnnotator
from alpaca_eval.metrics import glm_winrate

from mpo.cache.artifacts import write_json
from mpo.endpoint import Endpoint
from mpo.errors import ConfigError, DataError, ProcessError, UserError, cut
from mpo.evaluate.asking import Asking
from mpo.evaluate.estimates import mean_over_prompts
from mpo.score.verdicts import NoVerdict

if TYPE_CHECKING:
    from mpo.evaluate.alpaca_eval.options import Options
    from mpo.evaluate.base import Evidence
    from mpo.evaluate.questions import Run

CACHE_FILE = "judged.json"
MISSING = -1
"""The package's mark of a pair without a verdict in its cache."""
OPENAI_CLIENT = "openai_completions"
NOT_SENT = frozenset({"model_name", "requires_chatml", "num_procs", "batch_size", "price_per_token", "is_strip"})
"""Arguments of the package's client that are none of the API's."""
UNKNOWN = frozenset({"tokens_to_favor", "tokens_to_avoid", "is_chat", "client_kwargs", "n_retries"})
NO_VERDICT = "the judge's answer has no verdict"
Record = dict[str, Any]


@dataclass(frozen=True)
class Judged:
    """Annotations of each run of answers, in the reference's order; how many lack a preference, and why; what the judge
    was asked with."""

    annotations: dict[Run, list[Record]]
    missing: int
    reasons: Counter[str]
    asked_as: dict[str, Any] = field(default_factory=dict)


def annotate(
    measure: Options, reference: list[Record], outputs: Mapping[Run, list[Record]], evidence: Evidence
) -> Judged:
    """Have the judge compare each output with the reference's. Stopped, it goes on after the last chunk of pairs.

    Raises:
        ConfigError: the judge's server wants another key; the annotator cannot be used.
        ProcessError: the judge cannot be asked any more.
        DataError: it gave not one verdict.
    """
    assert evidence.output is not None
    cache = evidence.output / CACHE_FILE
    _forget_missing(cache, evidence)
    configuration = measure.configuration()
    where, total, reasons = "measure.annotator", sum(map(len, outputs.values())), Counter[str]()
    with Endpoint(measure.url, measure.key_variable, measure.timeout_s, measure.attempts, "measure.url") as end:
        client = _Client(Asking(end, measure.concurrency), reasons)
        try:
            annotator = PairwiseAnnotator(
                annotators_config=configuration, caching_path=cache, is_store_missing_annotations=True
            )
        except Exception as error:
            raise ConfigError(f"alpaca_eval cannot use it: {error}", where, "look at its configs.yaml") from error
        asked_as = _own_client(annotator, configuration, measure, client)
        annotations, done = {}, 0
        for run, produced in outputs.items():
            evidence.on_progress(done, total, "pairs")
            try:
                found = annotator.annotate_head2head(reference, produced, chunksize=4 * measure.concurrency)
            except UserError:
                raise
            except Exception as error:  # of a client of the package's own
                what = f"alpaca_eval stopped: {type(error).__name__}: {error}"
                remedy = "look at the judge, then run the same command again, it goes on from where it was"
                raise ProcessError(what, where, remedy) from error
            annotations[run] = _in_order(found, reference, measure.judge)
            done += len(produced)
        evidence.on_progress(done, total, "pairs")
    missing = sum(row["preference"] is None for rows in annotations.values() for row in rows)
    if missing > reasons.total():
        reasons[NO_VERDICT] = missing - reasons.total()
    if missing == total:
        why = ", ".join(f"{count} × {reason}" for reason, count in reasons.items())
        raise DataError(f"not one of {total} pairs has a verdict ({why})", where, "take another judge or annotator")
    return Judged(annotations, missing, reasons, asked_as)


def package_length_control(data: Path, annotations: Mapping[Run, list[Record]]) -> dict[float, tuple[float, float]]:
    """The package's length-controlled win rate and its standard error, in percent, by temperature.

    Args:
        data: df_gamed.csv, whose instructions are those of the annotations in the same order, which it cannot tell.

    Raises:
        DataError: it is another file, or of another number of instructions.
    """
    import pandas

    try:
        numbers = pandas.read_csv(data)
        known = numbers["index"].nunique()
        if not {"model", "instruction_difficulty", "preference", "std_delta_len"} <= set(numbers.columns):
            raise KeyError("columns")
    except (ValueError, KeyError, OSError) as error:
        raise DataError(f"not the package's df_gamed.csv: {error}", data.name, "give that file, unchanged") from None
    by_instruction: dict[float, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for (temperature, _), rows in annotations.items():
        if len(rows) != known:
            what = f"it is about {known} instructions, the reference has {len(rows)}"
            raise DataError(what, data.name, "give the file of these instructions, or leave measure.length_data out")
        table = pandas.DataFrame(rows)
        with _in_place_of_the_hub(data):
            glm_winrate.get_length_controlled_winrate(table, save_weights_dir=None, is_warn_extreme_changes=False)
        for instruction, value in zip(table["instruction"], table["glm_preference"], strict=True):
            by_instruction[temperature][instruction].append(float(value))
    found = {}
    for temperature, values in by_instruction.items():
        mean = mean_over_prompts([sum(each) / len(each) for each in values.values()])
        found[temperature] = 100 * mean.value, 100 * mean.standard_error
    return found


@contextlib.contextmanager
def _in_place_of_the_hub(data: Path) -> Iterator[None]:
    """The package has no option for the file, it always asks the hub for it."""
    asks_hub = glm_winrate.hf_hub_download
    glm_winrate.hf_hub_download = lambda **_: str(data)
    try:
        yield
    finally:
        glm_winrate.hf_hub_download = asks_hub


def _forget_missing(cache: Path, evidence: Evidence) -> None:
    """Take pairs without a verdict out of what an earlier attempt has kept, so that they are asked again."""
    if not cache.exists():
        return
    try:
        rows = json.loads(cache.read_text(encoding="utf-8"))
        kept = [row for row in rows if row["preference"] not in (None, MISSING)]
    except (ValueError, TypeError, KeyError):
        evidence.warn("the verdicts of an earlier attempt are damaged; the judge is asked again")
        kept = []
    if kept:
        write_json(cache, kept)
    else:
        cache.unlink()


def _own_client(annotator: PairwiseAnnotator, configuration: Path, measure: Options, client: _Client) -> dict[str, Any]:
    """Put the project's client in the place of the package's; what each annotator asks with, by its name."""
    written = yaml.safe_load(configuration.read_text(encoding="utf-8"))
    used = {}
    for name, one in annotator.annotators.items():
        options = dict(one.completions_kwargs)
        if written[name].get("fn_completions", OPENAI_CLIENT) == OPENAI_CLIENT:
            if measure.model is not None:
                options["model_name"] = measure.model
            if unknown := sorted(UNKNOWN & options.keys()):
                what = f"'{name}' sets {', '.join(unknown)}, which OpenAI's chat API does not have"
                raise ConfigError(what, "measure.annotator", "take another annotator")
            if "<|im_start|>" not in one.prompt_template:
                raise ConfigError(f"'{name}' asks no chat model", "measure.annotator", "take another annotator")
            one.completions_kwargs = options
            one.fn_completions = client
        elif measure.model is not None:
            what = f"'{name}' asks its judge by {written[name]['fn_completions']}"
            raise ConfigError(what, "measure.model", "leave it out, or take an annotator of OpenAI's API")
        used[name] = {key: value for key, value in options.items() if "key" not in key}
    return used


@dataclass(frozen=True)
class _Client:
    """A completion function as the package's annotators call one. ``reasons``: counts why requests have no answer."""

    asking: Asking
    reasons: Counter[str]

    def __call__(self, prompts: Sequence[str], **options: Any) -> dict[str, list[Any]]:
        sent = {key: value for key, value in options.items() if key not in NOT_SENT}
        sent = {"temperature": 0.7, "top_p": 1.0, "max_tokens": 2048, **sent}  # as the package's client has them
        bodies = [
            {"model": options["model_name"], "messages": alpaca_eval.utils.prompt_to_chatml(each.strip()), **sent}
            for each in prompts
        ]
        answers: list[Record] = [{"text": "", "total_tokens": 0}] * len(bodies)
        for place, found in self.asking(bodies, _read):
            if isinstance(found, NoVerdict):
                self.reasons[found.reason] += 1
            else:
                answers[place] = found
        return {"completions": [each["text"] for each in answers], "completions_all": answers}


def _read(answer: dict[str, Any]) -> Record:
    """The first choice as the package's parsers read it."""
    choice = answer["choices"][0]
    message = choice["message"]
    text = message.get("content") or " "
    calls = message.get("tool_calls") or []
    if call := message.get("function_call") or (calls[0]["function"] if calls else None):
        text = call["arguments"]
    return {**choice, "text": str(text), "total_tokens": (answer.get("usage") or {}).get("total_tokens", 0)}


def _in_order(found: Sequence[Record], reference: Sequence[Record], judge: str) -> list[Record]:
    """Annotations in the reference's order with the fields that win rates are read from."""
    by_instruction = {row["instruction"]: row for row in found}
    if len(found) != len(reference) or by_instruction.keys() != {row["instruction"] for row in reference}:
        first = next((row["instruction"] for row in reference if row["instruction"] not in by_instruction), "")
        what = f"alpaca_eval has paired {len(found)} of {len(reference)} instructions {cut(first, 60)!r}"
        raise DataError(what, "measure.reference", "look at its instructions")
    rows = []
    for one in reference:
        row = by_instruction[one["instruction"]]
        kept = {key: row[key] for key in ("instruction", "output_1", "output_2", "generator_1", "generator_2")}
        value = float("nan") if row.get("preference") is None else float(row["preference"])
        rows.append({**kept, "annotator": judge, "preference": None if math.isnan(value) else value})
    return rows
