"""Code of the user's own, such as a loss or a scorer: whatever it raises is one line for its author. No torch."""

from __future__ import annotations

import contextlib
import os
import signal
import traceback
from collections.abc import Iterable, Iterator

from mpo.errors import ConfigError, UserError
from mpo.failures.explain import explain_failure

OWN = "mpo."


@contextlib.contextmanager
def user_code(module: str, name: str, key: str) -> Iterator[None]:
    """Run the user's code as the block; what it raises, an exit included, becomes a mistake at the config's ``key``.

    In a stage's process the traceback goes to the log. What :mod:`mpo` itself raises passes, and so do failures of the
    surroundings (a full disk, no memory).

    Args:
        module: that the code is in.
        name: what its author calls it.

    Raises:
        ConfigError: with the exception's type, text and place.
    """
    try:
        yield
    except UserError:
        raise
    except (Exception, SystemExit, KeyboardInterrupt) as error:
        # Where a signal of the terminal is handled otherwise, a KeyboardInterrupt is the code's own.
        pressed = isinstance(error, KeyboardInterrupt) and signal.getsignal(signal.SIGINT) is signal.default_int_handler
        if f"{module}.".startswith(OWN) or pressed or explain_failure(error):
            raise
        remedy = "correct it"
        if "TORCHELASTIC_RUN_ID" in os.environ:
            traceback.print_exc()
            remedy += "; its traceback is in the stage's log"
        raise ConfigError(f"{name} {_raised(error, module)}", key, remedy) from error


def author(parts: Iterable[object]) -> tuple[str, str]:
    """Module and class of the first of ``parts`` that is the user's own, else of the first: whose code may fail."""
    classes = [type(part) for part in parts]
    own = next((one for one in classes if not f"{one.__module__}.".startswith(OWN)), classes[0])
    return own.__module__, own.__name__


def _raised(error: BaseException, module: str) -> str:
    """What was raised and where: in the author's own package, if the error passed through it."""
    package = module.partition(".")[0]
    frames = list(traceback.walk_tb(error.__traceback__))
    own = [one for one in frames if str(one[0].f_globals.get("__name__")).partition(".")[0] == package] or frames
    at = f" at {os.path.basename(own[-1][0].f_code.co_filename)}:{own[-1][1]}" if own else ""
    if isinstance(error, SystemExit):
        return f"called exit({error.code}){at}"
    first = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    return f"raised {type(error).__name__}{f': {first[:150]}' if first else ''}{at}"
