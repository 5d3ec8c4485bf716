"""Typed configuration: what a run may be told, checked before anything is loaded. No torch."""
