"""When a failed request to a language model is worth another try, and how long to wait.

Rate limits, timeouts, broken connections and a server's own faults pass; a wrong key, an unknown
model or an empty account do not. The pauses double, from half a second to half a minute, or are as
long as the server says. Where a server says it is asked too often, all threads wait, not one.
"""

from __future__ import annotations

import datetime
import email.utils
import random
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

RETRIES = 8  # about two minutes in all
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0  # seconds
LONGEST_STATED = 600.0  # seconds: a server that wants more is better asked another day
PASSING = {408, 409, 425, 429}  # statuses, beside all from 500
ASKED_TOO_OFTEN = {429, 503}
SPENT = {"insufficient_quota", "billing_hard_limit_reached"}  # codes of a 429 that does not pass

T = TypeVar("T")


class BrokenReply(Exception):
    """The server answered, and what came was no reply."""


class GivenUp(Exception):
    """Another thread's request failed for good: this one is not worth waiting for."""


class Patience:
    """Sends requests again while that helps; for all threads of one client."""

    def __init__(self) -> None:
        self.retried = 0
        self._given_up = threading.Event()
        self._not_before = 0.0  # of the monotonic clock
        self._lock = threading.Lock()

    def give_up(self) -> None:
        """End all waiting: each waiting thread, and each that would wait, raises GivenUp."""
        self._given_up.set()

    def send(self, request: Callable[[], T]) -> T:
        """What `request()` returns; what it raises once that is lasting or has lasted too long."""
        for tried in range(RETRIES + 1):
            self._wait_for_all()
            try:
                return request()
            except Exception as error:
                pause = pause_after(error, tried)
                if pause is None or tried == RETRIES:
                    raise
                self._put_off(error, pause)
        raise AssertionError("the last try returns or raises")

    def _put_off(self, error: Exception, pause: float) -> None:
        with self._lock:
            self.retried += 1
            if getattr(error, "status_code", None) in ASKED_TOO_OFTEN:
                self._not_before = max(self._not_before, time.monotonic() + pause)
                return
        self._sleep(pause)

    def _wait_for_all(self) -> None:
        while (left := self._not_before - time.monotonic()) > 0:
            self._sleep(left)
        self._sleep(0)

    def _sleep(self, seconds: float) -> None:
        if self._given_up.wait(seconds):
            raise GivenUp


def pause_after(error: Exception, tried: int) -> float | None:
    """Seconds to wait before the next try after `tried` others; None if it would fail again."""
    status: int | None = getattr(error, "status_code", None)
    if status is None:
        if not isinstance(error, BrokenReply) and not _is_of_the_connection(error):
            return None
    elif getattr(error, "code", None) in SPENT or not (status in PASSING or status >= 500):
        return None
    headers: Mapping[str, str] = getattr(getattr(error, "response", None), "headers", {})
    stated = stated_pause(headers)
    if stated is not None:
        return stated if stated <= LONGEST_STATED else None
    pause = min(LONGEST_PAUSE, FIRST_PAUSE * 2.0**tried)
    return pause * random.uniform(0.75, 1.0)  # so that threads do not all come back at once


def stated_pause(headers: Mapping[str, str]) -> float | None:
    """The seconds of Retry-After, as milliseconds, seconds or a date; None where there are none."""
    for name, unit in (("retry-after-ms", 1e-3), ("retry-after", 1.0)):
        try:
            return max(0.0, float(headers[name]) * unit)
        except (KeyError, ValueError):
            continue
    try:
        date = email.utils.parsedate_to_datetime(headers["retry-after"])
    except (KeyError, ValueError):
        return None
    now = datetime.datetime.now(date.tzinfo)
    return max(0.0, (date - now).total_seconds())


def _is_of_the_connection(error: Any) -> bool:
    # Of the SDK, which is imported by whoever needs it.
    return any(kind.__name__ == "APIConnectionError" for kind in type(error).__mro__)
