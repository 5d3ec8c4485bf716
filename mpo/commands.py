"""What the small commands (``python -m mpo.results`` and the like) have in common: how they end. No torch."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable

from mpo.errors import EXIT_CODE, DataError, UserError


def exit_status(command: Callable[[], int]) -> int:
    """What ``command`` returns, or 2 after one line about a mistake or a file that cannot be used.

    0 where the reader of the output, such as head, has seen enough.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal's encoding may lack what data and names hold
            stream.reconfigure(errors="backslashreplace")
    try:
        status = command()
        sys.stdout.flush()
        return status
    except UserError as error:
        print(f"mpo: error: {error}", file=sys.stderr)
        return EXIT_CODE
    except BrokenPipeError:
        sys.stderr.close()
        return 0
    except OSError as error:
        print(f"mpo: error: {DataError(error.strerror or str(error), str(error.filename or ''))}", file=sys.stderr)
        return EXIT_CODE
