"""Readers of preference data: a local file or a hub name in, response sets out."""

from mpo.data.problems import Problem, ProblemCounts, Reason
from mpo.data.sources.layouts import LAYOUTS
from mpo.data.sources.reader import SourceSpec, read_sets, resolve_layout

__all__ = ["LAYOUTS", "Problem", "ProblemCounts", "Reason", "SourceSpec", "read_sets", "resolve_layout"]
