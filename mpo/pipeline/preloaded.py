"""For the fork server to import last: what transformers works out once in a process, a fifth of a second of each stage.

What has been made so far is then left out of garbage collection, which would copy its pages in each stage's process.
"""

from __future__ import annotations

import gc

from transformers.conversion_mapping import get_checkpoint_conversion_mapping

get_checkpoint_conversion_mapping("llama")  # it compiles the patterns of every model type's weights
gc.collect()
gc.freeze()
