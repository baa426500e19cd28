"""One look a second at what waits in the service's database: who has something to do is woken, all others are left alone.

A dozen tasks that each ask for themselves keep a mesh busy in which nothing happens.
"""

from shared.healing import MISSING, TO_RESTATE
from shared.orders import ORDERED
from shared.parking import PARKED
from shared.tx import Database
from shared.workers import READY

EVERY = 1.0

_LOOK = f"""
SELECT 'job ' || o.kind FROM due o WHERE {READY} GROUP BY o.kind
UNION ALL SELECT '{MISSING}' WHERE EXISTS (SELECT FROM expected) OR EXISTS (SELECT FROM resend_requests WHERE closed_at IS NULL)
UNION ALL SELECT '{PARKED}' WHERE EXISTS (SELECT FROM parked) OR EXISTS (SELECT FROM fuses)
UNION ALL SELECT '{ORDERED}' WHERE EXISTS (SELECT FROM orders_taken WHERE done_at IS NULL)
UNION ALL SELECT '{TO_RESTATE}' WHERE EXISTS (SELECT FROM restatements)"""


class Watch:
    """What one process looks for, and whom it wakes."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self._before: set[str] = set()

    async def look(self) -> None:
        """Wakes for what waits now, and once more for what is there no longer: its gauges show that it is over."""
        async with self.database.session() as connection:
            now = {row[0] for row in await connection.fetch(_LOOK)}
        for name in now | self._before:
            self.database.waker(name).set()
        self._before = now
