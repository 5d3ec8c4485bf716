"""Responses drawn with vLLM's engine: token ids in, token ids out. No torch until it is opened."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from mpo.engine import check_installed, in_one_line, load_engine
from mpo.errors import ConfigError
from mpo.sample.base import SIGNED_SEEDS, Draw, Drawn, Request, Sampler, SamplingJob

WHERE, REMEDY = "sampler", "sampler=hf draws without it"


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
    checks_weights: ClassVar[bool] = True
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
        check_installed("sampler", "sampler=hf")

    @contextlib.contextmanager
    def open(self, job: SamplingJob) -> Iterator[Draw]:
        """See :meth:`Sampler.open`."""
        longest = job.max_prompt_tokens + job.decoding.max_new_tokens
        with in_one_line(WHERE, REMEDY):
            model = load_engine(
                job.policy,
                longest,
                job.decoding.precision,
                self.eager,
                revision=job.revision,
                trust_remote_code=job.trust_remote_code,
                tensor_parallel_size=self.tensor_parallel,
                gpu_memory_utilization=self.gpu_memory,
                generation_config="vllm",  # not the model's own
                skip_tokenizer_init=True,
            )
            if job.canary is not None:
                job.canary.check(_prompt_logps(model, job.canary.token_ids), job.decoding.precision, "vLLM")

        def draw(requests: Sequence[Request]) -> list[list[Drawn]]:
            with in_one_line(WHERE, REMEDY):
                return _draw(model, requests, job)

        yield draw


def _prompt_logps(model: Any, ids: Sequence[int]) -> list[float]:
    """Log-probs of all tokens but the first."""
    from vllm import SamplingParams

    params = SamplingParams(max_tokens=1, prompt_logprobs=0, detokenize=False)
    (answer,) = model.generate([{"prompt_token_ids": list(ids)}], params, use_tqdm=False)
    return [float(at[index].logprob) for index, at in zip(ids[1:], answer.prompt_logprobs[1:], strict=True)]


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
