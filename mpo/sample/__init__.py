"""Samplers: what draws responses from a policy."""

from mpo.sample.base import Draw, Drawn, Request, Sampler, SamplingJob
from mpo.sample.hf import HFSampler

__all__ = ["Draw", "Drawn", "HFSampler", "Request", "Sampler", "SamplingJob"]
