"""Tasks of EleutherAI's lm-evaluation-harness."""

from mpo.evaluate.lm_eval.measure import LMEval

__all__ = ["LMEval"]
