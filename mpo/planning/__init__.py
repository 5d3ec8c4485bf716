"""Estimates of a run before it runs: parameters, tokens, steps, memory a device, disk. Pure functions, no torch."""
