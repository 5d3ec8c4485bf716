"""The command line of the end-to-end tests, on the card."""

from tests.end_to_end.conftest import command_lines, empty_cache, first_run, mpo, server, shared_cache

__all__ = ["command_lines", "empty_cache", "first_run", "mpo", "server", "shared_cache"]
