"""For the fork server to import before anything else: requests to stop are not its to take.

Such a request may reach a whole process group (``timeout``, systemd, a batch system's time limit). The fork server's
end would end the processes that it made before they have written their checkpoints; it goes when the run goes.
"""

from __future__ import annotations

import signal

for _number in (signal.SIGTERM, signal.SIGHUP):  # the stages' processes, which inherit this, set them back
    signal.signal(_number, signal.SIG_IGN)
