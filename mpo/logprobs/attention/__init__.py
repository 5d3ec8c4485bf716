"""Attention over a packed row in which the responses of a set share their prompt (design: the fast path).

Registered with transformers as ``mpo_shared_prefix``: everything of the model but this function treats the row's
tokens one by one, so nothing is computed twice and nothing is padding. One interface, three back ends: blocks of
responses (CPU), FlexAttention (CUDA), and a dense mask, the plain reference that the others are compared with.
"""

from mpo.logprobs.attention.backends import DEFAULT, Attend, Backend
from mpo.logprobs.attention.blocks import BlockAttend
from mpo.logprobs.attention.dense import DenseAttend
from mpo.logprobs.attention.flex import FlexAttend
from mpo.logprobs.attention.interface import NAME
from mpo.logprobs.attention.outputs import KeptOutputs
from mpo.logprobs.attention.prompt import KeptPrompt

__all__ = [
    "DEFAULT",
    "NAME",
    "Attend",
    "Backend",
    "BlockAttend",
    "DenseAttend",
    "FlexAttend",
    "KeptOutputs",
    "KeptPrompt",
]
