"""Many requests to a judge at once, each answered or counted as missing. No torch."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, TypeVar

from mpo.endpoint import Endpoint, RefusedRequest, in_parallel
from mpo.errors import DataError, ProcessError, UserError, cut
from mpo.score.verdicts import NoVerdict

REFUSED = "the judge's server refused the request"
NO_ANSWER = "the judge's server gave no answer"
UNREADABLE = "the judge's answer is none of the chat API"
MOST_IN_A_ROW = 10
"""Requests that may fail one after the other before the judge is taken to be gone."""
SHOWN = 100

T = TypeVar("T")


@dataclass
class Asking:
    """Requests to one server of OpenAI's chat API.

    A request that fails after all attempts has no verdict: its answer would be made up. A server that wants another
    key, or fails :data:`MOST_IN_A_ROW` requests in a row, stops the stage, which goes on from there when it is run
    again. (A judge of held-out answers stops at the first failure instead, see :class:`mpo.score.judge.Judge`.)

    Attributes:
        end: the server.
        concurrency: requests at once.
    """

    end: Endpoint
    concurrency: int
    _in_a_row: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __call__(
        self, bodies: Sequence[Mapping[str, Any]], read: Callable[[dict[str, Any]], T]
    ) -> Iterator[tuple[int, T | NoVerdict]]:
        """What ``read`` makes of each answer, beside its request's place, as they come.

        Args:
            read: raises KeyError, TypeError, ValueError, AttributeError or IndexError for an answer of another form.

        Raises:
            ConfigError: the server wants another key, or refuses one request after the other.
            ProcessError: it cannot be reached, takes too long or fails over and over.
            DataError: what it answers over and over is none of the chat API.
        """
        with ThreadPoolExecutor(self.concurrency) as workers:
            yield from in_parallel(workers, [functools.partial(self._ask, body, read) for body in bodies])

    def _ask(self, body: Mapping[str, Any], read: Callable[[dict[str, Any]], T]) -> T | NoVerdict:
        try:
            answer = self.end.post("chat/completions", body)
        except RefusedRequest as error:
            return self._missed(REFUSED, error)
        except ProcessError as error:
            return self._missed(NO_ANSWER, error)
        try:
            found = read(answer)
        except (KeyError, TypeError, ValueError, AttributeError, IndexError):
            what = f"{self.end.url} answered what is no answer of the chat API: {cut(str(answer), SHOWN)}"
            return self._missed(UNREADABLE, DataError(what, "measure.url", "name a server of OpenAI's chat API"))
        with self._lock:
            self._in_a_row = 0
        return found

    def _missed(self, reason: str, error: UserError) -> NoVerdict:
        with self._lock:
            self._in_a_row += 1
            if self._in_a_row >= MOST_IN_A_ROW:
                raise error
        return NoVerdict(reason, error)
