"""For the fork server to import before anything else: requests to stop are not its to take.

Such a request may reach a whole process group (Ctrl-C, ``timeout``, systemd, a batch system's time limit). The fork
server's end would end the processes that it made before they have written their checkpoints; it goes when the run goes.
"""

from __future__ import annotations

import ctypes
import signal
import sys

if sys.platform == "linux":
    # The run's death is its own, also while it still imports; the processes that it made see to themselves.
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
# It was started with all of them blocked, and the other three stay so: a stage's process inherits that and takes them
# in its first line. A request that comes in between waits for it; an ignored one would be lost.
signal.signal(signal.SIGQUIT, signal.SIG_IGN)
signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGQUIT])
