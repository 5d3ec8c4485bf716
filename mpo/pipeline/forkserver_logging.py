"""For the fork server to import before the libraries, whose warnings would go to the terminal of every run.

On a CPU with products in bfloat16 bitsandbytes, which peft imports wherever it is installed, looks for a faster kernel
for weights in 4 bits while it is imported, and warns if there is none.
"""

from __future__ import annotations

import logging

logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
