"""Attention over a packed row in which the responses of a set share their prompt (design: the fast path).

Registered with transformers as ``mpo_shared_prefix``: everything of the model but this function treats the row's
tokens one by one, so nothing is computed twice and nothing is padding. One interface, three back ends: blocks of
responses (CPU), FlexAttention (CUDA), and a dense mask, the plain reference that the others are compared with.
"""

from mpo.policy.attention.backends import DEFAULT, Attend, Backend, CpuAttend
from mpo.policy.attention.calls import AttentionCall, noting, shared_call
from mpo.policy.attention.dense import DenseAttend
from mpo.policy.attention.flex import FlexAttend
from mpo.policy.attention.interface import NAME
from mpo.policy.attention.outputs import KeptOutputs
from mpo.policy.attention.prompt import KeptPrompt

__all__ = [
    "DEFAULT",
    "NAME",
    "Attend",
    "AttentionCall",
    "Backend",
    "CpuAttend",
    "DenseAttend",
    "FlexAttend",
    "KeptOutputs",
    "KeptPrompt",
    "noting",
    "shared_call",
]
