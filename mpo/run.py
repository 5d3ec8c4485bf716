"""``python -m mpo.run``: the command line, imported once Ctrl-C ends this process without a traceback."""

from __future__ import annotations

import signal


def main() -> None:
    """Run the command; see :mod:`mpo.pipeline.command_line`."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # until the command takes it: nothing has begun
    from mpo.pipeline.command_line import main as command  # here, so that the lines above come first

    command()


if __name__ == "__main__":
    main()
