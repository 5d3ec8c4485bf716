"""Sources of preference data: local files, hub data sets, and what a source of one's own is."""

from mpo.data.problems import Problem, ProblemCounts, Reason
from mpo.data.sources.base import OnProblem, Source
from mpo.data.sources.layouts import LAYOUTS
from mpo.data.sources.mixture import Mixture
from mpo.data.sources.reader import SourceSpec, read_sets, resolve_layout

__all__ = [
    "LAYOUTS",
    "Mixture",
    "OnProblem",
    "Problem",
    "ProblemCounts",
    "Reason",
    "Source",
    "SourceSpec",
    "read_sets",
    "resolve_layout",
]
