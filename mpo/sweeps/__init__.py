"""Sweeps: a space of settings, how the next one is chosen, and a folder in which a sweep goes on after a stop."""
