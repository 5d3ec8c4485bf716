"""Typed configuration: the complete run configuration, checked before anything is loaded. No torch."""
