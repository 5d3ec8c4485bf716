"""The command line of the end-to-end tests, on the card."""

from tests.end_to_end.conftest import command_lines, mpo, shared_cache

__all__ = ["command_lines", "mpo", "shared_cache"]
