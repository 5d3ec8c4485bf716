"""One run from a checked configuration to its report."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mpo.cache.artifacts import Store
from mpo.cache.stage import Stage
from mpo.config.files import is_shipped, redacted_name, redacted_source, with_own_shape
from mpo.config.schema import RunConfig
from mpo.config.source import check_source, source_of
from mpo.config.targets import build
from mpo.data.sources.layouts import check_layout
from mpo.errors import ConfigError, DataError
from mpo.evaluate import base as measures
from mpo.evaluate.records import by_key
from mpo.failures.user_code import user_code
from mpo.pipeline import launch
from mpo.pipeline.access import check_cache, check_inputs, check_output
from mpo.pipeline.collect import Identity, collect
from mpo.pipeline.execute import Executor
from mpo.pipeline.graph import Graph
from mpo.pipeline.needs import answers, build_measure, draws, measure_class, samples
from mpo.pipeline.profiles import profile_warning
from mpo.pipeline.regimes import compose
from mpo.pipeline.rules import build_objects, check
from mpo.pipeline.scoring import build_scorers
from mpo.plain import to_plain
from mpo.report.headline import label_and_rest
from mpo.report.records import RunReport, StageRow
from mpo.results import Results
from mpo.results import Run as Recorded
from mpo.sample.base import Sampler
from mpo.sample.checked import check_sampler
from mpo.score.checked import check_scorer, errors_of
from mpo.track import provenance
from mpo.track.console import Console
from mpo.track.logger import Identity as Logged
from mpo.track.logger import Loggers, build_loggers, run_key
from mpo.track.profile import TRACE_FILE


def run(config: RunConfig, folder: Path, choices: dict[str, Any], overrides: Sequence[str] = ()) -> RunReport | None:
    """Plan, build and report one run; returns its record, None of a dry run and on machines that do not report.

    Args:
        config: typed, not yet checked across groups.
        folder: the run's own folder (Hydra's).
        choices: option chosen in each config group, for the title.
        overrides: of the command line, for the record.
    """
    for group in ("loss", "model", "data", "regime"):
        if not isinstance(choices.get(group), str):
            raise ConfigError("takes one option", group, f"write {group}=OPTION, or {group}=ONE,OTHER -m to run each")
    console = Console(sys.stdout if config.dry_run else None)  # there the plan is what was asked for
    title = " · ".join(str(choices[group]) for group in ("loss", "model", "data", "regime")) + f" · seed {config.seed}"
    check_inputs(config)
    config = with_own_shape(config)
    partition = check(config)
    _check_layout(config)
    if not config.dry_run:
        _check_parts(config)
        launch.prepare_fork_server()  # it imports what the stages need while this process imports torch
    _check_scratch(config)
    objects = build_objects(config, partition)
    _check_cards(config)
    console.line(f"mpo  {title}")
    from mpo.pipeline.memory_choice import settle
    from mpo.pipeline.plan import show_plan

    config, chosen = settle(config, objects)
    store = Store(_folder(config.cache_dir, "cache_dir", "MPO_CACHE"))
    graph = compose(config, objects.loss)
    check_cache(store, graph.stages(store))
    forecast = show_plan(console, config, graph, store, objects, chosen)
    if config.dry_run:
        return None
    if store.adopt():
        console.line(f"mpo: the stages of an older version in {store.root} are built again; they can be deleted")
    folder = folder.resolve()
    check_output(folder)
    results = Results(_folder(config.results, "results", "MPO_RESULTS"))
    name = config.name or "-".join([str(choices["loss"]), str(choices["model"]), f"seed{config.seed}"])
    first = config.launcher.node_rank == 0  # the only machine that logs and reports
    identity = Identity(folder, name, title, provenance.command(overrides))
    loggers = build_loggers(config.logger, config.allow_targets) if first else []
    key = run_key(name, [store.fingerprint(stage) for stage in graph.stages(store)])
    tracked = Loggers.open(loggers, Logged(name, str(choices["regime"]), key, folder, _logged(config)))
    try:
        rows = _build(config, graph, store, console, tracked)
        if not first:
            console.line(f"{len(rows)} stages are there; the first machine reports")
            return None
        report = collect(config, graph, store, rows, forecast, identity)
        from mpo.report.page import write_run_page  # here: it leads to matplotlib, and most of a run does without

        page = write_run_page(folder, report)
        results.add(report)
    except BaseException:
        tracked.finish(failed=True)
        raise
    _log(tracked, report, folder)
    tracked.finish()
    _close(console, report, page, results, graph, store)
    return report


def _logged(config: RunConfig) -> dict[str, Any]:
    """The configuration without folders of this machine: of what lies here only the name."""
    plain = {key: value for key, value in to_plain(config).items() if key not in ("cache_dir", "results")}
    for group, keys in (
        ("model", ("path", "tokenizer", "reference", "chat_template")),
        ("data", ("source", "heldout_source")),
    ):
        for key in keys:
            if isinstance(plain[group][key], str):
                plain[group][key] = redacted_name(plain[group][key])
    plain["data"]["source"] = redacted_source(plain["data"]["source"])
    plain["partition"] = redacted_source(plain["partition"])
    for name, node in plain["evaluate"]["measures"].items():
        for option in measure_class(config, name).files & node.keys():
            node[option] = node[option] and redacted_name(node[option])
    return plain


def _folder(name: str, key: str, variable: str) -> Path:
    """The folder, made if it is not there; raises ConfigError if it cannot be made or written to."""
    if not name.strip():
        raise ConfigError("is empty", key, f"name a folder, or leave {key} and {variable} out")
    folder = Path(name).expanduser().absolute()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:  # also in the kernel's own file systems, where permissions promise more
        what = f"'{folder}' cannot be written to ({error.strerror})"
        raise ConfigError(what, key, f"name another folder: {key}=FOLDER, or set {variable}") from error
    return folder


def _check_cards(config: RunConfig) -> None:
    """Raise ConfigError for more processes than this machine has cards, if it has any and the run is to happen."""
    import torch

    cards, processes = torch.cuda.device_count(), config.launcher.processes
    if not config.dry_run and 0 < cards < processes:
        raise ConfigError(f"{processes} processes, but {cards} CUDA devices", "launcher.processes",
                          f"set launcher.processes={cards}, on several machines launcher.nodes too")  # fmt: skip


def _check_scratch(config: RunConfig) -> None:
    """Raise ConfigError for a model that cannot be made; the package's own are known and cost no look at it."""
    model = config.model
    if model.scratch is None or is_shipped(model.architecture):
        return
    from mpo.stages.scratch import check_architecture  # here: it leads to transformers' models

    check_architecture(model.architecture)


def _check_layout(config: RunConfig) -> None:
    """Raise ConfigError for a layout that there is not, or a score that it lacks."""
    try:
        check_layout(config.data.layout, config.data.score_field)
    except DataError as error:
        raise ConfigError(error.what, f"data.{error.where}", error.remedy) from None


def _check_parts(config: RunConfig) -> None:
    """Raise ConfigError for what source, sampler, scorer, measures and loggers find wrong, before anything is
    computed for them."""
    check_source(source_of(config.data, config.allow_targets))
    if samples(config):
        for key, scorer in build_scorers(config):
            with errors_of(key):
                check_scorer(scorer)
    if draws(config) or answers(config):
        check_sampler(build(config.sampler, Sampler, config.allow_targets, "sampler"))  # type: ignore[type-abstract]
    for logger in build_loggers(config.logger, config.allow_targets):
        with user_code(type(logger).__module__, type(logger).__name__, "logger"):
            logger.check()
    for name in config.evaluate.measures:
        key, measure = f"evaluate.measures.{name}", build_measure(config, name)
        with measures.errors_of(key), user_code(type(measure).__module__, type(measure).__name__, key):
            measure.check()


def _build(config: RunConfig, graph: Graph, store: Store, console: Console, tracked: Loggers) -> list[StageRow]:
    """Every stage, in order, its metrics logged as they come."""

    def on_metrics(stage: Stage, record: dict[str, Any]) -> None:
        prefix = stage.name.rpartition("/")[0]  # "round2/train" logs under "round2/", the start's under "start/"
        step = record["step"]
        numbers = {key: value for key, value in record.items() if key != "step" and value is not None}
        tracked.log({f"{prefix}/{key}" if prefix else key: value for key, value in numbers.items()}, step)

    executor = Executor(store, config.launcher, console, on_metrics)
    for stage in graph.stages(store):
        executor.build(stage)
        cached = next(row.cached for row in executor.rows if row.name == stage.name)
        if warning := profile_warning(stage, store, cached):
            console.line(f"mpo: warning: {warning}")
    return executor.rows


def _log(tracked: Loggers, report: RunReport, folder: Path) -> None:
    numbers: dict[str, Any] = {}
    for key, estimate in by_key(report.evaluation).items():
        numbers[key] = estimate.value
        if estimate.standard_error is not None:
            numbers[f"{key}/standard_error"] = estimate.standard_error
    numbers |= {f"skipped: {reason}": count for reason, count in report.skipped.items()}
    numbers |= report.data_facts
    for planned in report.planned:
        numbers |= {f"{planned.name}, planned": planned.predicted, f"{planned.name}, measured": planned.measured}
    tracked.summary({**numbers, "seconds": report.seconds, "commit": report.commit, "hardware": report.hardware})
    rows = [[s.prompt, s.before, s.after, s.score_before, s.score_after] for s in report.samples]
    if rows:
        tracked.table("samples", ["prompt", "before", "after", "score before", "score after"], rows)
    if report.scored:
        scorers = list(dict.fromkeys(name for each in report.scored for name in each.scores))
        responses = [
            [each.round, each.prompt, each.response, *(each.scores.get(name) for name in scorers)]
            for each in report.scored
        ]
        tracked.table("scored responses", ["round", "prompt", "response", *scorers], responses)
    for picture in sorted((folder / "figures").glob("*.png")):
        tracked.image(picture.stem, picture)


def _close(console: Console, report: RunReport, page: Path, results: Results, graph: Graph, store: Store) -> None:
    """The last screen: what came out and where it lies; above it where the time of profiled trainings went."""
    paths = {stage.name: stage.path for stage in report.stages}
    for name, profile in report.profiles.items():
        trace = f"{paths[name]}/{TRACE_FILE}, for chrome://tracing or ui.perfetto.dev"
        console.summary(f"{name}: {profile.title}", profile.facts | {"trace": trace})
    facts = {}
    for key, estimate in report.measures.items():
        error = f" ± {estimate.standard_error:.3f}" if estimate.standard_error is not None else ""
        against = "".join(f"  ({base.name} {base.value:.3f})" for base in estimate.baselines)
        facts[key] = f"{estimate.value:.3f}{error}{f' {estimate.unit}' if estimate.unit else ''}{against}"
    if report.skipped:
        facts["skipped sets"] = ", ".join(f"{reason} {count}" for reason, count in report.skipped.items())
    scale = f"  [{label_and_rest(report.note)[0]}]" if report.note else ""
    for planned in report.planned:
        facts[planned.name] = str(planned)
    facts["time"] = f"{report.seconds:.0f} s in stages that were built"
    facts["report"] = str(page)
    facts["results"] = f"{results.folder}, run {Recorded.of(report).id}"
    facts["policy"] = str(store.path(graph.rounds[-1].train) / "policy")
    console.summary(f"{report.title}{scale}", facts)
