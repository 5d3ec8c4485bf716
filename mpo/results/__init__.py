"""Finished runs as data: a store with a small file a run, and ``python -m mpo.results``. No torch."""

from mpo.results.keys import run_key
from mpo.results.records import SCHEMA_VERSION, Row, Run
from mpo.results.store import Results

__all__ = ["SCHEMA_VERSION", "Results", "Row", "Run", "run_key"]
