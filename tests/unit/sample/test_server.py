"""Servers as samplers: what is asked of them, what is retried, and what stops the run in one line."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mpo import endpoint
from mpo.config.schema import SampleConfig
from mpo.errors import ConfigError, DataError, UserError
from mpo.sample import Drawn, Request, SamplingJob
from mpo.sample.base import SIGNED_SEEDS
from mpo.sample.canary import Canary
from mpo.sample.server import ServerSampler
from tests.unit.sample.loopback import Answer, Loopback, serving

MODELS = {"data": [{"id": "mine", "root": "owner/policy"}]}
JOB = SamplingJob("owner/policy", None, False, SampleConfig(temperature=0.7, top_p=0.9, max_new_tokens=5), (2, 3), 16)
REQUESTS = [Request((4, 5), (1, 2**64 - 1)), Request((6,), (7,))]


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint, "FIRST_WAIT_S", 0.001)


def completion(body: Any) -> dict[str, Any]:
    """Tokens that tell the seed and the prompt."""
    ids = [10 + body["seed"] % 7, 20 + body["prompt"][0], 2]
    choice = {"token_ids": ids, "logprobs": {"token_logprobs": [-1.0, -0.5, -0.25]}, "prompt_token_ids": body["prompt"]}
    return {"choices": [choice]}


def well(path: str, body: Any) -> Answer:
    return (200, MODELS) if path == "models" else (200, completion(body))


def draw(*servers: Loopback, **options: Any) -> list[list[Drawn]]:
    sampler = ServerSampler([server.url for server in servers], **{"attempts": 3, "timeout_s": 5.0, **options})
    with sampler.open(JOB) as drawing:
        return drawing(REQUESTS)


def test_every_seed_is_a_request_and_answers_come_back_in_order() -> None:
    with serving(well) as one, serving(well) as other:
        found = draw(one, other)
        asked = [body for server in (one, other) for body in server.bodies("completions")]
        shared = [len(server.bodies("completions")) for server in (one, other)]
    seeds = [[seed % SIGNED_SEEDS for seed in request.seeds] for request in REQUESTS]
    assert [[one.token_ids for one in of_request] for of_request in found] == [
        [[10 + seed % 7, 20 + request.prompt_ids[0], 2] for seed in of_request]
        for request, of_request in zip(REQUESTS, seeds, strict=True)
    ]
    assert all(one.finished and one.token_logps == [-1.0, -0.5, -0.25] for of_request in found for one in of_request)
    assert sorted(shared) == [1, 2]
    for body in asked:
        assert (body["model"], body["temperature"], body["top_p"], body["max_tokens"]) == ("mine", 0.7, 0.9, 5)
        assert body["stop_token_ids"] == [2, 3] and body["ignore_eos"] is True
        assert (body["top_k"], body["repetition_penalty"], body["min_p"]) == (-1, 1.0, 0.0)  # not the model's own


@pytest.mark.parametrize(("logps", "fits"), [((-1.0, -2.0), True), ((-1.0, -3.0), False)])
def test_a_server_with_other_weights_is_refused_whatever_its_models_name(logps: tuple[float, ...], fits: bool) -> None:
    def answer(path: str, body: Any) -> Answer:
        if "prompt_logprobs" not in body if isinstance(body, dict) else True:
            return well(path, body)
        asked = [None, *({str(index): {"logprob": logp}} for index, logp in zip((6, 7), logps, strict=True))]
        return 200, {"choices": [{"prompt_logprobs": asked}]}

    with serving(answer) as server:
        opened = ServerSampler([server.url]).open(replace(JOB, canary=Canary((4, 6, 7), (-1.0, -2.0))))
        if fits:
            with opened as drawing:
                assert len(drawing(REQUESTS)) == 2
        else:
            with pytest.raises(ConfigError, match=f"{server.url} gives a known prompt log-probs that are 0.5 nats"):
                opened.__enter__()
            assert len(server.bodies("completions")) == 1


def test_the_key_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", "sk-secret")
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with serving(well) as server:
        draw(server, key_variable="MY_KEY")
        assert {headers["authorization"] for _, headers, _ in server.asked} == {"Bearer sk-secret"}
    with serving(lambda path, body: (401, {"error": {"message": "bad key sk-secret"}})) as server:
        with pytest.raises(ConfigError, match="wants another key \\(401\\)") as caught:
            draw(server, key_variable="MY_KEY")
        assert "secret" not in str(caught.value)
        assert all("authorization" in headers for _, headers, _ in server.asked)
    with serving(well) as server:
        draw(server)
        assert all("authorization" not in headers for _, headers, _ in server.asked)


def opened(server: Loopback, job: SamplingJob, **options: Any) -> None:
    with ServerSampler([server.url], **options).open(job):
        pass


def test_the_policy_may_be_served_by_its_path_or_under_a_given_name(tmp_path: Path) -> None:
    (tmp_path / "policy").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "policy")
    job = SamplingJob(str(tmp_path / "policy"), None, False, JOB.decoding, (2,), 16)
    for card in ({"id": "x", "root": str(tmp_path / "link")}, {"id": str(tmp_path / "policy")}):
        with serving(lambda path, body, card=card: (200, {"data": [card]})) as server:  # type: ignore[misc]
            opened(server, job)
    with serving(well) as server:
        opened(server, job, model="mine")
        with pytest.raises(ConfigError, match=r"serves owner/policy, not .*policy; serve the policy there"):
            opened(server, job)
        with pytest.raises(ConfigError, match="serves owner/policy, not other"):
            opened(server, job, model="other")


def test_what_passes_is_retried() -> None:
    seen: dict[str, int] = {}
    lock = threading.Lock()

    def flaky(path: str, body: Any) -> Answer:
        with lock:
            seen[key] = count = seen.get(key := f"{path}{body and body['seed']}", 0) + 1
        if count == 1:
            return 503, {"error": {"message": "overloaded"}}
        return (200, b"<html>a proxy's page</html>") if count == 2 else well(path, body)

    with serving(flaky) as server:
        assert len(draw(server)) == 2


@pytest.mark.parametrize(
    ("answer", "kind", "said"),
    [
        ((500, {"error": {"message": "CUDA error"}}), UserError, r"answered 500: CUDA error \(3 times\)"),
        ((200, b"data: nonsense"), UserError, r"answered what is no JSON object: 'data: nonsense' \(3 times\)"),
        ((200, {"choices": [{"text": "hi"}]}), DataError, "answered without token ids or log-probs"),
        ((200, {"choices": []}), DataError, "answered without token ids or log-probs"),
        ((400, {"message": "max_tokens is too large"}), ConfigError, r"refused the request \(400\): max_tokens"),
        ((404, b"not here"), ConfigError, r"refused the request \(404\): not here"),
    ],
)
def test_what_does_not_pass_is_one_line(answer: Answer, kind: type[UserError], said: str) -> None:
    served = serving(lambda path, body: (200, MODELS) if path == "models" else answer)
    with served as server, pytest.raises(kind, match=said) as caught:
        draw(server)
    line = str(caught.value)
    assert line.startswith(f"sampler: {server.url} ") and "\n" not in line


def test_tokens_that_the_server_has_changed_are_refused() -> None:
    def with_bos(path: str, body: Any) -> Answer:
        return well(path, body if path == "models" else {**body, "prompt": [1, *body["prompt"]]})

    with serving(with_bos) as server, pytest.raises(DataError, match="has changed the prompt's tokens"):
        draw(server)


def test_a_server_that_hangs_or_is_not_there_ends_in_time() -> None:
    free = threading.Event()

    def hanging(path: str, body: Any) -> Answer:
        if path != "models":
            free.wait(30)
        return well(path, body)

    began = time.monotonic()
    with serving(hanging) as server:
        with pytest.raises(UserError, match=r"gave no answer within 0\.2 s \(2 times\); look at the server, then run"):
            draw(server, timeout_s=0.2, attempts=2)
        free.set()
    with pytest.raises(UserError, match=r"cannot be reached: .*\(2 times\)"):
        draw(server, attempts=2)
    assert time.monotonic() - began < 20


@pytest.mark.parametrize(
    ("options", "where"),
    [
        ({"urls": []}, "sampler.urls"),
        ({"urls": ["localhost:8000"]}, "sampler.urls"),
        ({"urls": ["http://me:secret@host/v1"]}, "sampler.urls"),
        ({"urls": ["http://host/v1?key=secret"]}, "sampler.urls"),
        ({"concurrency": 0}, "sampler.concurrency"),
        ({"attempts": 0}, "sampler.attempts"),
        ({"timeout_s": 0.0}, "sampler.timeout_s"),
    ],
)
def test_wrong_options_are_refused_before_anything_is_asked(options: dict[str, Any], where: str) -> None:
    with pytest.raises(ConfigError) as caught:
        ServerSampler(**{"urls": ["http://localhost:8000/v1"], **options})
    assert caught.value.where == where and "secret" not in str(caught.value)
