"""What a mesh in containers needs besides running processes: ``python -m deploy.setup`` makes it once, ``… keep`` looks after it."""

import asyncio
import json
import logging
import sys
import time

from tenacity import before_sleep_log, retry, stop_after_delay, wait_exponential

from deploy.chores import CONNECTORS_EVERY, KAFKA_EVERY, Chores
from deploy.errors import MeshError
from deploy.plan import Plan
from deploy.state import State

HEALTHY = "healthy"
"""The file in the state folder that is touched whenever nothing had to be done."""

log = logging.getLogger("mesh.setup")


class Given(State):
    """A state folder whose passwords come from the engine: one that was made up here nobody else would know."""

    def secret(self, name: str) -> str:
        known: dict[str, str] = json.loads((self.root / "secrets.json").read_text(encoding="utf-8"))
        if name not in known:
            raise MeshError(f"This container was not given the password {name}.", "Write docker-compose.yml again: make compose")
        return known[name]


@retry(stop=stop_after_delay(120), wait=wait_exponential(multiplier=0.2, max=3), before_sleep=before_sleep_log(log, logging.WARNING), reraise=True)
async def make(chores: Chores) -> None:
    """Users, rights, topics, schemas, roles, publications and slots: everything that others cannot start without."""
    await asyncio.gather(asyncio.to_thread(chores.users), asyncio.to_thread(chores.topics), chores.databases())


def keep(chores: Chores) -> None:
    """For ever: connectors run, and what Kafka has lost is made again."""
    made = 0.0
    while True:
        try:
            done = [chores.connectors()]
            if time.monotonic() - made > KAFKA_EVERY:
                done += [chores.users(), chores.topics(), asyncio.run(chores.slots())]
                made = time.monotonic()
        except Exception as error:  # noqa: BLE001 - whatever is away, it is looked for again
            log.warning("not well yet: %s", error)
        else:
            _tell(chores, ", ".join(filter(None, done)))
        time.sleep(CONNECTORS_EVERY)


def _tell(chores: Chores, done: str) -> None:
    if done:
        log.info("made: %s", done)
    else:
        (chores.state.root / HEALTHY).touch()


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    state = Given(State.default().root)
    chores = Chores(state, Plan.load(state))
    if sys.argv[1:] == ["keep"]:
        keep(chores)
    else:
        asyncio.run(make(chores))


if __name__ == "__main__":
    main()
