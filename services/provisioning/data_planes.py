"""Data planes: known once their agent has said hello."""

from datetime import datetime

from schemas.feed import Hello
from shared.errors import NotYet
from shared.tx import Tx

STALE = "5 minutes"


async def greet(tx: Tx, hello: Hello) -> None:
    """Notes where a data plane is reached. An older hello changes nothing."""
    await tx.run(
        "INSERT INTO data_planes AS known (id, host, port, databases, agent_epoch, counter) VALUES ($1, $2, $3, $4, $5, $6) "
        "ON CONFLICT (id) DO UPDATE SET host = excluded.host, port = excluded.port, databases = excluded.databases, "
        "agent_epoch = excluded.agent_epoch, counter = excluded.counter, last_seen = now() "
        "WHERE (excluded.agent_epoch, excluded.counter) > (known.agent_epoch, known.counter)",
        hello.data_plane, hello.host, hello.port, hello.databases, hello.agent_epoch, hello.counter,
    )  # fmt: skip


async def heard(tx: Tx) -> dict[str, datetime]:
    """When each agent said hello last."""
    return {r["id"]: r["last_seen"] for r in await tx.records("SELECT id, last_seen FROM data_planes")}


async def roomiest(tx: Tx) -> str:
    """The data plane with the fewest tenants, among those heard of lately if there are any. Raises :class:`NotYet` when none is known."""
    found: str | None = await tx.value(
        f"SELECT d.id FROM data_planes d ORDER BY d.last_seen < now() - interval '{STALE}', "
        "(SELECT count(*) FROM placements p WHERE p.data_plane = d.id), d.id LIMIT 1"
    )
    if found is None:
        raise NotYet("no data plane has said hello yet")
    return found
