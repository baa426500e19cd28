"""What the console publishes: what operators ordered."""

from typing import Literal
from uuid import UUID

from shared.rows import Row

Act = Literal["retry", "skip", "cancel", "resend", "restate"]


class Order(Row):
    """What an operator wants done. Every service's kit takes it that it concerns, all of them when no service is named.

    ``actors``: the reaction or worker that is meant; for ``cancel`` those of the flow's steps to come. ``subject``: what it is
    stuck on, or the stream to be sent again or restated. ``change``: the one to be skipped.
    """

    table = "console.orders"
    stream = "global:orders"
    id: UUID
    act: Act
    service: str | None
    actors: list[str]
    subject: str | None
    change: str | None
    from_seq: int | None
    to_seq: int | None
    flow_id: UUID | None
    org_id: UUID | None
