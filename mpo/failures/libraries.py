"""What a library raises, whatever its kind, as one line that names the library."""

from __future__ import annotations

import contextlib
import traceback
from collections.abc import Callable, Iterator

from mpo.errors import ConfigError, UserError, cut
from mpo.failures.explain import explain_failure

SHOWN = 160
IN_LOG = "its traceback is in the stage's log"


def _first_line(error: Exception) -> str:
    """What it says in its first line that is not empty; '' if it says nothing."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), "")


@contextlib.contextmanager
def library_errors(what: str, where: str, remedy: Callable[[Exception], str]) -> Iterator[None]:
    """A mistake of one line; the traceback goes to the stage's log.

    Args:
        what: of the library, e.g. "vLLM stopped".
        where: the config key.
        remedy: given the exception.

    Raises:
        ConfigError: with the exception's type and first line. Mistakes of users, and failures that
            :func:`mpo.failures.explain.explain_failure` knows, are raised as they are.
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, UserError) or explain_failure(error):
            raise
        traceback.print_exc()
        kind = type(error).__name__
        said = _first_line(error)
        message = f"{what}: {kind}: {cut(said, SHOWN)}" if said else f"{what}: {kind}"
        raise ConfigError(message, where, remedy(error)) from error
