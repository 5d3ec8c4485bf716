"""A real vLLM server on loopback as sampler, against the engine in the process and the policy itself."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import LlamaForCausalLM

from mpo.config.schema import SampleConfig
from mpo.errors import ConfigError
from mpo.sample import Request, SamplingJob
from mpo.sample.canary import Canary
from mpo.sample.server import ServerSampler
from mpo.sample.vllm import VLLMSampler

START_S = 180
STOPS = (2, 3)
LIMIT = 12
REQUESTS = [Request((4, 6, 7, 10), range(6)), Request((4, 30, 31), range(6, 12)), Request((4, 6, 50, 51), (2**64 - 1,))]


def job(folder: Path) -> SamplingJob:
    return SamplingJob(str(folder), None, False, SampleConfig(max_new_tokens=LIMIT), STOPS, 16, known(folder))


def known(folder: Path, off: float = 0.0) -> Canary:
    ids = (4, 6, 7, 10, 50)
    with torch.no_grad():
        logps_TV = LlamaForCausalLM.from_pretrained(folder)(torch.tensor([ids])).logits[0].log_softmax(-1)
    return Canary(ids, tuple(float(logps_TV[place, index]) + off for place, index in enumerate(ids[1:])))


@pytest.fixture(scope="module")
def url(policy: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Of ``vllm serve``."""
    pytest.importorskip("vllm", reason="vLLM is not installed (make install-vllm)")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = [
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
        "--dtype",
        "float32",
        "--enforce-eager",
        "--max-model-len",
        "64",
    ]
    # A seeded request whose prompt is computed in pieces stops the CPU build.
    options += ["--no-enable-chunked-prefill", "--max-num-batched-tokens", "2048"]
    log = tmp_path_factory.mktemp("server") / "log"
    with log.open("w") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(policy), *options],
            env={**os.environ, "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_NO_USAGE_STATS": "1", "VLLM_API_KEY": "sk-right"},
            stdout=out, stderr=out, start_new_session=True,
        )  # fmt: skip
    try:
        deadline = time.monotonic() + START_S
        while "startup complete" not in log.read_text():
            assert process.poll() is None and time.monotonic() < deadline, log.read_text()[-3000:]
            time.sleep(0.2)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)


@pytest.mark.slow
def test_it_draws_what_the_engine_in_the_process_draws(url: str, policy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-right")
    with ServerSampler([url], concurrency=4).open(job(policy)) as draw:
        served = draw(REQUESTS)
    with VLLMSampler(eager=True).open(job(policy)) as draw:
        drawn = draw(REQUESTS)
    assert [[list(one.token_ids) for one in of_request] for of_request in served] == [
        [list(one.token_ids) for one in of_request] for of_request in drawn
    ]
    model = LlamaForCausalLM.from_pretrained(policy)
    for request, of_request in zip(REQUESTS, served, strict=True):
        for one in of_request:
            ids = list(one.token_ids)
            assert one.finished is (ids[-1] in STOPS) and (one.finished or len(ids) == LIMIT)
            with torch.no_grad():
                logps_TV = model(torch.tensor([[*request.prompt_ids, *ids]])).logits[0].log_softmax(-1)
            first = len(request.prompt_ids) - 1
            expected = [float(logps_TV[first + t, index]) for t, index in enumerate(ids)]
            assert one.token_logps == pytest.approx(expected, abs=1e-5)


@pytest.mark.slow
def test_another_key_or_policy_is_refused(url: str, policy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-wrong")
    with pytest.raises(ConfigError, match="wants another key") as caught, ServerSampler([url]).open(job(policy)):
        pass
    assert "sk-" not in str(caught.value)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-right")
    elsewhere = SamplingJob("owner/other", None, False, SampleConfig(), STOPS, 16)
    with pytest.raises(ConfigError, match=f"serves {policy}, not owner/other"), ServerSampler([url]).open(elsewhere):
        pass


@pytest.mark.slow
def test_other_weights_under_the_policys_name_are_refused(
    url: str, policy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-right")
    off = replace(job(policy), canary=known(policy, 0.02))
    with pytest.raises(ConfigError, match="log-probs that are 0.02 nats a token off"), ServerSampler([url]).open(off):
        pass
