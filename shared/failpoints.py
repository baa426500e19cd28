"""Failpoints: named places where a test ends the process at once, to see that nothing is lost or doubled there."""

import os
import signal
from functools import cache
from typing import Literal, get_args

from shared.log import log
from shared.settings import settings

Name = Literal[
    "answer",  # the request is committed, its answer has not left
    "reaction",  # a reaction has run, its position has not moved
    "replica",  # replicas are written, their position has not moved
    "follower",  # the followers have run, their position has not moved
    "offset",  # a batch is committed, its Kafka offset is not
    "retry",  # a parked reaction has run at last, it is still parked
    "work",  # a piece of leased work is done and marked, its lease is still there
    "mail",  # the mail server has the mail, the message is not marked
    "customer",  # the payment provider has the customer, the subscription is not marked
    "feed",  # Kafka has the tenant's topic and right, the grant is not marked
    "step",  # between two steps of the agent
    "migration",  # a migration has run, it is not committed
    "resend",  # changes are sent again, the position behind the request has not moved
    "heads",  # heads are announced, that is not committed
]
FAILPOINTS: tuple[Name, ...] = get_args(Name)


class _Passed:
    """How often the armed failpoint was passed in this process."""

    times = 0


@cache
def _armed() -> tuple[str, int]:
    name, _, hit = settings().mesh_failpoint.partition(":")
    return name, int(hit or 1)


def failpoint(name: Name) -> None:
    """Ends the process, as ``kill -9`` does, when ``MESH_FAILPOINT=<name>:<n>`` names this place and it is passed for the n-th time."""
    armed, hit = _armed()
    if name != armed:
        return
    _Passed.times += 1
    if _Passed.times == hit:
        log.critical("failpoint", extra={"failpoint": name, "hit": hit})
        os.kill(os.getpid(), signal.SIGKILL)
