"""Data: sources, checks, storage, splits, chat rendering and tokens."""
