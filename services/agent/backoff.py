"""Waiting longer after each failure."""

import random
from dataclasses import dataclass


@dataclass
class Backoff:
    """Seconds to wait: half as much again after each failure, with jitter, so that many agents do not return at once."""

    least: float
    most: float
    _next: float = 0

    def wait(self) -> float:
        self._next = min(max(self._next * 1.5, self.least), self.most)
        return self._next * random.uniform(0.75, 1.25)  # noqa: S311 - jitter, not a secret

    def reset(self) -> None:
        self._next = 0
