"""vLLM's engine as sampler, the real one, against transformers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import LlamaForCausalLM

from mpo.config.schema import SampleConfig
from mpo.errors import ConfigError
from mpo.sample import Draw, HFSampler, Request, SamplingJob
from mpo.sample.canary import Canary
from mpo.sample.vllm import VLLMSampler

STOPS = (2, 3)
LIMIT = 24
PROMPTS = [(4, 6, 7, 10), (4, 30, 31), (4, 6, 50, 51, 52, 53, 54)]


def job(folder: Path, **decoding: float) -> SamplingJob:
    how = SampleConfig(max_new_tokens=LIMIT, **decoding)  # type: ignore[arg-type]
    return SamplingJob(str(folder), None, False, how, STOPS, 16, known(folder))


@pytest.fixture(scope="module")
def folder(policy: Path) -> Path:
    return policy


@pytest.fixture(scope="module")
def draw(folder: Path) -> Iterator[Draw]:
    pytest.importorskip("vllm", reason="vLLM is not installed (make install-vllm)")
    with VLLMSampler(eager=True).open(job(folder)) as draw:
        yield draw


def logps(folder: Path, prompt: tuple[int, ...], ids: Sequence[int]) -> list[float]:
    """Log-probs of ``ids`` after the prompt."""
    model = LlamaForCausalLM.from_pretrained(folder)
    with torch.no_grad():
        logps_TV = model(torch.tensor([[*prompt, *ids]])).logits[0].float().log_softmax(-1)
    return [float(logps_TV[len(prompt) - 1 + t, index]) for t, index in enumerate(ids)]


def known(folder: Path, off: float = 0.0) -> Canary:
    return Canary(PROMPTS[2], tuple(logp + off for logp in logps(folder, PROMPTS[2][:1], PROMPTS[2][1:])))


def test_tokens_end_at_a_stop_id_and_have_the_log_probs_of_the_policy(draw: Draw, folder: Path) -> None:
    found = draw([Request(prompt, range(6)) for prompt in PROMPTS])
    ends = set()
    for prompt, of_prompt in zip(PROMPTS, found, strict=True):
        for one in of_prompt:
            assert one.token_logps == pytest.approx(logps(folder, prompt, one.token_ids), rel=1e-5, abs=1e-5)
            assert one.finished is (one.token_ids[-1] in STOPS) and not {*one.token_ids[:-1]} & {*STOPS}
            assert one.finished or len(one.token_ids) == LIMIT
            ends.add(one.finished)
    assert ends == {True, False}


def test_a_request_alone_and_among_others_is_the_same(draw: Draw) -> None:
    others = [Request(PROMPTS[n % 3], [n * 8 + k for k in range(8)]) for n in range(25)]
    ((alone,),) = draw([Request(PROMPTS[1], [77])])
    *_, (among,) = draw([*others, Request(PROMPTS[1], [77])])
    assert alone.token_ids == among.token_ids
    assert draw([Request(PROMPTS[1], [78])])[0][0].token_ids != alone.token_ids


def test_first_tokens_are_those_of_the_policy_as_often(draw: Draw, folder: Path) -> None:
    n = 1500
    counts = torch.zeros(111)
    for one in draw([Request(PROMPTS[0], range(n))])[0]:
        counts[one.token_ids[0]] += 1
    model = LlamaForCausalLM.from_pretrained(folder)
    with torch.no_grad():
        expected = n * model(torch.tensor([PROMPTS[0]])).logits[0, -1].softmax(-1)
    often = expected > 5
    chi2 = (((counts - expected) ** 2 / expected)[often]).sum()
    freedom = int(often.sum())
    assert freedom > 10 and abs(float(chi2) - freedom) < 5 * (2 * freedom) ** 0.5


def test_nearly_greedy_it_draws_what_transformers_draws(folder: Path) -> None:
    pytest.importorskip("vllm", reason="vLLM is not installed (make install-vllm)")
    cold = job(folder, temperature=0.01)
    requests = [Request(prompt, [5]) for prompt in PROMPTS]
    with VLLMSampler(eager=True).open(cold) as one, HFSampler().open(cold) as other:
        for (ours,), (theirs,) in zip(one(requests), other(requests), strict=True):
            assert tuple(ours.token_ids) == tuple(theirs.token_ids)


@pytest.mark.slow
def test_other_weights_stop_before_anything_is_drawn(folder: Path) -> None:
    pytest.importorskip("vllm", reason="vLLM is not installed (make install-vllm)")
    off = replace(job(folder), canary=known(folder, 0.02))
    told = "vLLM gives a known prompt log-probs that are 0.02 nats a token off"
    with pytest.raises(ConfigError, match=told), VLLMSampler(eager=True).open(off):
        pass


def test_where_it_is_not_installed_that_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="sampler: vLLM is not installed; make install-vllm, or take sampler=hf"):
        VLLMSampler().check()


@pytest.mark.parametrize("options", [{"tensor_parallel": 0}, {"gpu_memory": 0.0}, {"gpu_memory": 1.5}])
def test_options_out_of_range_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=next(iter(options))):
        VLLMSampler(**options)  # type: ignore[arg-type]
