"""Rate limits: how many requests a minute one address, one caller and one account may make of this process.

Nobody's requests count against their address, a session's or an API key's against itself and against the person it acts for.
What comes from this machine has a wide limit of its own, so that a load test on it gets through. Counted in memory, by each
replica for itself: nothing about them is worth a round trip to the database.
"""

import ipaddress
import math
import time
from collections.abc import Callable

from fastapi import Request

from shared.errors import Refused
from shared.settings import settings

MINUTE = 60.0
_MANY = 10_000
"""So many names are kept before those that have a whole minute free again are forgotten."""
_SLACK = 1e-6
"""Seconds: what adding fractions costs."""


class TooManyRequests(Refused):
    """More requests came from you within a minute than one address, one caller or one account may make. Wait as long as Retry-After says."""

    status = 429

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.retry_after = math.ceil(seconds)


class Window:
    """A minute that moves: so many requests at once, and as many again spread over every minute after.

    Of each name one number is kept: when all of its requests will have left the window (the generic cell rate algorithm).
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._free_at: dict[str, float] = {}

    def count(self, name: str, limit: int) -> float:
        """Counts a request: 0, or the seconds until one more is let through; then this one is not counted."""
        now, each = self._clock(), MINUTE / limit
        busy_until = max(now, self._free_at.get(name, now))
        wait = busy_until + each - MINUTE - now
        if wait > _SLACK:
            return wait
        if len(self._free_at) >= _MANY:
            self._free_at = {n: at for n, at in self._free_at.items() if at > now}
        self._free_at[name] = busy_until + each
        return 0.0


_window = Window()


def count_nobody(request: Request) -> None:
    """Counts a request without a valid identity. Raises :class:`TooManyRequests`."""
    _count(request, f"address {_address(request)}", settings().rate_limit_per_minute)


def count_caller(request: Request, caller: str, account: str) -> None:
    """Counts a request of a known caller. Raises :class:`TooManyRequests`."""
    _count(request, f"caller {caller}", settings().rate_limit_caller_per_minute)
    _count(request, f"account {account}", settings().rate_limit_account_per_minute)


def _count(request: Request, name: str, limit: int) -> None:
    if _is_loopback(_address(request)):
        name, limit = f"loopback {name}", settings().rate_limit_loopback_per_minute
    if wait := _window.count(name, limit):
        raise TooManyRequests(wait)


def _address(request: Request) -> str:
    return request.client.host if request.client else ""


def _is_loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False
