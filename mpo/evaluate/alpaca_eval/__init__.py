"""AlpacaEval 2: the package's annotators, asked by this project's client."""

from mpo.evaluate.alpaca_eval.measure import AlpacaEval

__all__ = ["AlpacaEval"]
