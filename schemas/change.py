"""The change record: what every ``<service>.changes`` topic carries, keyed by its stream."""

from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field


class ChangeRecord(BaseModel):
    """One change of one row of a published table, numbered without a gap in its stream, in the order of the commits.

    ``before`` holds the changed columns only, all of them for a delete; ``after`` is the whole row, null for a delete. A table
    whose name begins with an underscore is none: ``_heads`` tells how far each stream has come, ``_restate`` begins and ends a
    restatement, whose records (``op`` ``restate``) say what is, not what happened.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    stream: str = Field(description="Whose history it is: `org:<uuid>`, `user:<uuid>` or `global:<name>`")
    seq: int = Field(ge=1, description="1, 2, 3, … in its service and stream; a number may come again, and then says the same")
    epoch: int = Field(ge=1, description="The incarnation of the service's database; a higher one starts the numbers anew")
    table: str = Field(description="The table's name in its service")
    op: Literal["insert", "update", "delete", "restate"]
    at: datetime = Field(description="When the row was written")
    by: str | None = Field(description="Who acted: `user:<uuid>`, `key:<uuid>`, `operator`, or null for the mesh itself")
    flow_id: UUID | None = Field(description="The flow it belongs to")
    cause: str | None = Field(description="The change it was a reaction to, as `<service>/<stream>/<epoch>.<seq>`")
    hops: int = Field(ge=0, description="How many reactions led to it")
    traceparent: str | None = Field(description="The trace it belongs to (W3C Trace Context)")
    before: dict[str, Any] | None
    after: dict[str, Any] | None
