"""Win rates from annotations in AlpacaEval's format: raw and length-controlled. No torch."""
