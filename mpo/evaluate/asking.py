"""Many requests to a judge at once, each answered or counted as missing. No torch."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, TypeVar

from mpo.endpoint import Endpoint, RefusedRequest
from mpo.errors import ProcessError, UserError

REFUSED = "the judge's server refused the request"
NO_ANSWER = "the judge's server gave no answer"
UNREADABLE = "the judge's answer is none of the chat API"
MOST_IN_A_ROW = 10
"""Requests that may fail one after the other before the judge is taken to be gone."""

T = TypeVar("T")


@dataclass
class Asking:
    """Requests to one server of OpenAI's chat API.

    A request that fails after all attempts is missing: its answer would be made up. A server that wants another key, or
    fails :data:`MOST_IN_A_ROW` requests in a row, stops the stage, which goes on from there when it is run again.

    Attributes:
        end: the server.
        concurrency: requests at once.
        missing: requests without an answer so far, by reason.
    """

    end: Endpoint
    concurrency: int
    missing: Counter[str] = field(default_factory=Counter)
    _in_a_row: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __call__(self, bodies: Sequence[Mapping[str, Any]], read: Callable[[dict[str, Any]], T]) -> list[T | None]:
        """What ``read`` makes of each answer, in order; None where there is none.

        Args:
            read: raises KeyError, TypeError, ValueError or AttributeError for an answer of another form.

        Raises:
            ConfigError: the server wants another key, or refuses one request after the other.
            ProcessError: it cannot be reached, takes too long or fails over and over.
        """
        with ThreadPoolExecutor(self.concurrency) as workers:
            asked = [workers.submit(self._ask, body, read) for body in bodies]
            try:
                return [each.result() for each in asked]
            except BaseException:  # also a request to stop: what waits in the queue need not be asked first
                workers.shutdown(cancel_futures=True)
                raise

    def _ask(self, body: Mapping[str, Any], read: Callable[[dict[str, Any]], T]) -> T | None:
        try:
            found = read(self.end.post("chat/completions", body))
        except (RefusedRequest, ProcessError) as error:
            self._miss(REFUSED if isinstance(error, RefusedRequest) else NO_ANSWER, error)
            return None
        except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
            if isinstance(error, UserError):
                raise
            self._miss(UNREADABLE, None)
            return None
        with self._lock:
            self._in_a_row = 0
        return found

    def _miss(self, reason: str, error: UserError | None) -> None:
        with self._lock:
            self.missing[reason] += 1
            self._in_a_row += 1
            if error is not None and self._in_a_row >= MOST_IN_A_ROW:
                raise error
