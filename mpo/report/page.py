"""The page of one run: a single HTML file that needs no network, with its figures beside it."""

from __future__ import annotations

from pathlib import Path

import yaml

from mpo.report.bars import estimate_bars
from mpo.report.curves import Drawn, training_figures
from mpo.report.headline import label_and_rest, result_sentence, trained_sentence
from mpo.report.html import write_page
from mpo.report.plots import histogram
from mpo.report.records import RunReport
from mpo.report.rounds import round_figures, time_figure
from mpo.report.scores import score_figures

PAGE = "report.html"


def write_run_page(out: Path, run: RunReport) -> Path:
    """Writes ``out/report.html`` and ``out/figures/*.png``; returns the page's path.

    Raises:
        DataError: a metrics file of the run is missing or broken.
    """
    metrics = run.metrics()  # first: drawing takes seconds
    return write_page(
        out / PAGE,
        "run.html",
        run=run,
        scale=label_and_rest(run.note),
        trained=trained_sentence(run),
        result=result_sentence(run.measures),
        bars={name: estimate_bars(estimate) for name, estimate in run.measures.items() if estimate.baselines},
        histograms=_histograms(run, out / "figures"),
        score_figures=score_figures(run.scores, out / "figures"),
        scorers=list(dict.fromkeys(name for each in run.scored for name in each.scores)),
        round_figures=[
            *round_figures(run.evaluation, out / "figures"),
            *time_figure(run.rounds, out / "figures"),
        ],
        round_kinds=list(dict.fromkeys(kind for row in run.rounds for kind in row.seconds)),
        training_figures=training_figures(metrics, out / "figures"),
        config=yaml.safe_dump(run.config, sort_keys=False, allow_unicode=True),
    )


def _histograms(run: RunReport, folder: Path) -> list[Drawn]:
    figures = [histogram(d, folder / f"histogram_{index}.png") for index, d in enumerate(run.distributions)]
    return [drawn for drawn in figures if drawn is not None]
