"""An OpenAI-compatible server: requests with retries, time limits, and a key that is never written down. No torch."""

from __future__ import annotations

import functools
import json
import os
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar
from urllib.parse import urlsplit

from mpo.errors import ConfigError, ProcessError, UserError, cut

if TYPE_CHECKING:
    import ssl

    import httpx

RETRIED = frozenset({408, 425, 429, 500, 502, 503, 504})
"""Statuses after which the same request may succeed."""
FIRST_WAIT_S, LONGEST_WAIT_S = 0.5, 60.0
SHOWN = 120
GO_ON = "then run the same command again, it goes on from where it was"

OPENAI = "https://api.openai.com/v1"
REQUEST_OPTIONS = frozenset({"url", "key_variable", "concurrency", "timeout_s", "attempts"})
"""Options of one server's requests, which cannot change what it answers."""

T = TypeVar("T")


def check_servers(where: str, urls: Sequence[str], concurrency: int, timeout_s: float, attempts: int) -> None:
    """Raise ConfigError for options below the config key ``where`` that name no server or are out of range."""
    check_requests(where, concurrency, timeout_s, attempts)
    if not urls:
        remedy = f"give addresses: '{where}.urls=[http://localhost:8000/v1]'"
        raise ConfigError("has no value", f"{where}.urls", remedy)
    for url in urls:
        check_url(url, f"{where}.urls")


def check_requests(where: str, concurrency: int, timeout_s: float, attempts: int) -> None:
    """Raise ConfigError for options of requests below the config key ``where`` that are out of range."""
    for name, value in (("concurrency", concurrency), ("attempts", attempts)):
        if value < 1:
            raise ConfigError(f"{value} is out of range", f"{where}.{name}", "give 1 or more")
    if not timeout_s > 0:
        raise ConfigError(f"{timeout_s:g} is out of range", f"{where}.timeout_s", "give seconds above 0")


def check_url(url: str, key: str) -> None:
    """Raise ConfigError for what is no address of a server, or holds a secret: the configuration is written down.

    Args:
        key: the config key of the address.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigError(f"{url!r} is no address of a server", key, "give one as http://localhost:8000/v1")
    if parts.username or parts.password or parts.query:
        what = "the address holds a name, a password or a query, and a run writes its configuration down"
        raise ConfigError(what, key, "put the key into an environment variable")


def check_key(where: str, url: str, key_variable: str) -> None:
    """Raise ConfigError where OpenAI would be asked without a key; ``where``: the config key above both options."""
    if url == OPENAI and not os.environ.get(key_variable):
        what = f"the environment variable {key_variable} is empty, and {OPENAI} wants a key"
        raise ConfigError(what, f"{where}.key_variable", "export it, or give the address of another judge")


class RefusedRequest(ConfigError):
    """A request that a server refuses as such; others may be answered."""


class Endpoint:
    """A connection to one server; threads may share it.

    Args:
        url: address, with the ``/v1`` of the API.
        key_variable: environment variable that holds the key; without it none is sent.
        timeout_s: seconds that an answer may take.
        attempts: how often a request is sent before its failure counts.
        where: the config key that errors name.
    """

    def __init__(self, url: str, key_variable: str, timeout_s: float, attempts: int, where: str) -> None:
        import httpx

        self.url, self._attempts, self._where = url.rstrip("/"), attempts, where
        self._timeout_s = timeout_s
        key = os.environ.get(key_variable)
        self._client: httpx.Client = httpx.Client(
            headers={"Authorization": f"Bearer {key}"} if key else {},
            verify=_certificates(),
            timeout=httpx.Timeout(timeout_s, connect=min(timeout_s, 30.0)),
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=None),
        )

    def get(self, path: str) -> dict[str, Any]:
        """The JSON object at ``path``; raises as :meth:`post`."""
        return self._request("GET", path, None)

    def cards(self) -> list[dict[str, Any]]:
        """What the server says of each model that it serves (``id``, often ``root``); raises as :meth:`post`."""
        found = self.get("models").get("data")
        return [card for card in found if isinstance(card, dict)] if isinstance(found, list) else []

    def post(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """The JSON object that the server answers.

        Raises:
            ProcessError: it cannot be reached, takes too long, or fails, over and over.
            ConfigError: it refuses the request as such (:class:`RefusedRequest`), or wants another key.
        """
        return self._request("POST", path, body)

    def _request(self, method: str, path: str, body: Mapping[str, Any] | None) -> dict[str, Any]:
        import httpx

        failure, wait = "", 0.0
        for attempt in range(self._attempts):
            time.sleep(wait)
            wait = min(LONGEST_WAIT_S, FIRST_WAIT_S * 2**attempt) * random.uniform(0.75, 1.25)
            try:
                answer = self._client.request(method, f"{self.url}/{path}", json=body)
            except httpx.TimeoutException:
                failure = f"gave no answer within {self._timeout_s:g} s"
                continue
            except httpx.HTTPError as error:
                failure = f"cannot be reached: {cut(str(error) or type(error).__name__, SHOWN)}"
                continue
            if answer.status_code in RETRIED:
                failure = f"answered {answer.status_code}: {_said(answer.text)}"
                wait = max(wait, _asked_to_wait(answer.headers.get("retry-after")))
                continue
            if answer.status_code != 200:
                raise self._refused(answer.status_code, _said(answer.text))
            try:
                value = answer.json()
            except ValueError:
                value = None
            if isinstance(value, dict):
                return value
            failure = f"answered what is no JSON object: {cut(answer.text, SHOWN)!r}"
        times = f" ({self._attempts} times)" if self._attempts > 1 else ""
        raise ProcessError(f"{self.url} {failure}{times}", self._where, f"look at the server, {GO_ON}")

    def _refused(self, status: int, said: str) -> UserError:
        if status in (401, 403):
            remedy = f"put its key into the environment variable that {self._where}.key_variable names"
            return ConfigError(f"{self.url} wants another key ({status})", self._where, remedy)
        return RefusedRequest(f"{self.url} refused the request ({status}): {said}", self._where, "correct the request")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._client.close()


def in_parallel(workers: ThreadPoolExecutor, calls: Sequence[Callable[[], T]]) -> Iterator[tuple[int, T]]:
    """What ``calls`` return, each beside its place, in the order in which they end.

    Of a call that raises, the error is raised once those that are under way have given theirs: their answers are paid
    for. Those that wait are not begun then, nor when the caller asks for no more.
    """
    places = {workers.submit(call): place for place, call in enumerate(calls)}
    failure: UserError | None = None
    try:
        for done in as_completed(places):
            if done.cancelled():
                continue
            try:
                value = done.result()
            except UserError as error:
                failure = failure or error
                for each in places:
                    each.cancel()
                continue
            yield places[done], value
    finally:  # also of a request to stop
        for each in places:
            each.cancel()
    if failure is not None:
        raise failure


@functools.cache  # a tenth of a second each
def _certificates() -> ssl.SSLContext:
    import httpx

    return httpx.create_ssl_context()


def _said(text: str) -> str:
    """The message of an error's body."""
    try:
        value = json.loads(text)
        value = value.get("error", value) if isinstance(value, dict) else value
        value = value.get("message", value) if isinstance(value, dict) else value
    except ValueError:
        value = text
    return cut(str(value).strip() or "nothing", SHOWN)


def _asked_to_wait(header: str | None) -> float:
    try:
        return min(LONGEST_WAIT_S, float(header or 0))
    except ValueError:  # a date
        return 0.0
