"""Responses drawn with vLLM's engine: token ids in, token ids out. No torch until it is opened."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from mpo.config.schema import Precision
from mpo.errors import ConfigError, UserError, cut
from mpo.failures.explain import explain_failure
from mpo.sample.base import SIGNED_SEEDS, Draw, Drawn, Request, Sampler, SamplingJob

DTYPES = {Precision.fp32: "float32", Precision.bf16: "bfloat16"}
SHOWN = 160
CPU_CACHE_GIB = "1"
"""Keys and values on a CPU, unless VLLM_CPU_KVCACHE_SPACE says otherwise: by default half of the machine's memory."""


@dataclass(frozen=True)
class VLLMSampler(Sampler):
    """One engine in the stage's own process, so that it ends with the stage, on one card or a tensor-parallel group.

    What a model's generation config says (temperature, top-k, repetition penalty) is not applied: the run's decoding
    and its stop ids alone are.

    Args:
        tensor_parallel: cards that share the model.
        gpu_memory: share of a card's memory that the engine takes.
        eager: no captured graphs; slower on cards, faster to start.

    Raises:
        ConfigError: a number out of range.
    """

    tensor_parallel: int = 1
    gpu_memory: float = 0.9
    eager: bool = False

    requests_at_once: ClassVar[int] = 256
    replicated: ClassVar[bool] = True
    continuous: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.tensor_parallel < 1:
            raise ConfigError(f"{self.tensor_parallel} cards", "sampler.tensor_parallel", "give 1 or more")
        if not 0 < self.gpu_memory <= 1:
            raise ConfigError(f"{self.gpu_memory} is out of range", "sampler.gpu_memory", "give a share in (0, 1]")

    @property
    def cards(self) -> int:
        """See :attr:`Sampler.cards`."""
        return self.tensor_parallel

    @property
    def memory_share(self) -> float:
        """See :attr:`Sampler.memory_share`."""
        return self.gpu_memory

    def check(self) -> None:
        """See :meth:`Sampler.check`."""
        if importlib.util.find_spec("vllm") is None:
            raise ConfigError("vLLM is not installed", "sampler", "make install-vllm, or take sampler=hf")

    @contextlib.contextmanager
    def open(self, job: SamplingJob) -> Iterator[Draw]:
        """See :meth:`Sampler.open`."""
        os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"  # the engine in this process, which nothing outlives
        os.environ.setdefault("VLLM_WORKER_MULTIPROC_METHOD", "spawn")
        os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
        os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", CPU_CACHE_GIB)
        import torch
        from vllm import LLM

        on_cpu = not torch.cuda.is_available()
        longest = job.max_prompt_tokens + job.decoding.max_new_tokens
        engine: dict[str, Any] = {}
        if on_cpu:  # a seeded request whose prompt is computed in pieces stops the CPU build
            engine = {"enable_chunked_prefill": False, "max_num_batched_tokens": max(longest, 2048)}
        with _in_one_line():
            model = LLM(
                job.policy,
                revision=job.revision,
                skip_tokenizer_init=True,
                trust_remote_code=job.trust_remote_code,
                dtype=DTYPES[job.decoding.precision],
                max_model_len=longest,
                tensor_parallel_size=self.tensor_parallel,
                gpu_memory_utilization=self.gpu_memory,
                enforce_eager=self.eager or on_cpu,
                generation_config="vllm",
                **engine,
            )

        def draw(requests: Sequence[Request]) -> list[list[Drawn]]:
            with _in_one_line():
                return _draw(model, requests, job)

        yield draw


@contextlib.contextmanager
def _in_one_line() -> Iterator[None]:
    """What vLLM raises as a mistake that names it; its traceback goes to the stage's log.

    Raises:
        ConfigError: an exception's type and first line.
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, UserError) or explain_failure(error):
            raise
        traceback.print_exc()
        said = next((line.strip() for line in str(error).splitlines() if line.strip()), "without a word")
        what = f"vLLM stopped: {type(error).__name__}: {cut(said, SHOWN)}"
        raise ConfigError(
            what, "sampler", "its traceback is in the stage's log; sampler=hf draws without it"
        ) from error


def _draw(model: Any, requests: Sequence[Request], job: SamplingJob) -> list[list[Drawn]]:
    """Every response is a request of its own to the engine, so that each has its own seed; prompts are cached there."""
    from vllm import SamplingParams

    decoding, stops = job.decoding, list(job.stop_token_ids)
    prompts, params = [], []
    for request in requests:
        for seed in request.seeds:
            prompts.append({"prompt_token_ids": list(request.prompt_ids)})
            params.append(
                SamplingParams(
                    seed=seed % SIGNED_SEEDS,
                    temperature=decoding.temperature,
                    top_p=decoding.top_p,
                    max_tokens=decoding.max_new_tokens,
                    stop_token_ids=stops,
                    ignore_eos=True,  # the run's stop ids alone end a response
                    detokenize=False,
                    logprobs=0,  # of the drawn token alone
                )
            )
    answers = iter(model.generate(prompts, params, use_tqdm=False))
    return [[_drawn(next(answers).outputs[0], job) for _ in request.seeds] for request in requests]


def _drawn(output: Any, job: SamplingJob) -> Drawn:
    ids = [int(index) for index in output.token_ids]
    logps = [float(at[index].logprob) for index, at in zip(ids, output.logprobs, strict=True)]
    return Drawn(ids, bool(ids) and ids[-1] in job.stop_token_ids, logps)
