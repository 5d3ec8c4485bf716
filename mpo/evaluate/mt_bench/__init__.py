"""MT-Bench: single answers graded as FastChat does, in FastChat's files."""

from mpo.evaluate.mt_bench.measure import MTBench

__all__ = ["MTBench"]
