"""The states of a database follow from what is wanted and what was observed."""

import uuid
from typing import Any

import pytest

from schemas.provisioning import DatabaseState
from shared.tx import Tx

STATES: list[tuple[str, dict[str, Any]]] = [
    ("requested", {}),
    ("provisioning", {"generation": 1}),
    ("ready", {"generation": 1, "observed": 1}),
    ("changing", {"generation": 2, "observed": 1}),
    ("suspended", {"generation": 1, "observed": 1, "suspended": True}),
    ("deleting", {"generation": 2, "observed": 1, "wanted": "deleted"}),
    ("deleted", {"generation": 2, "observed": 2, "wanted": "deleted"}),
    ("deleting", {"generation": 3, "observed": 2, "wanted": "gone"}),
    ("gone", {"generation": 3, "observed": 3, "wanted": "gone"}),
    ("failed", {"generation": 1, "error": "no room"}),
]


def test_every_state_is_reached() -> None:
    assert {state for state, _ in STATES} == set(DatabaseState.__args__)


async def test_the_name_on_the_server_follows_from_the_id_and_one_of_an_earlier_version_stays(tx: Tx) -> None:
    """Every tenant of the server can read it."""
    await tx.enter(f"org:{uuid.uuid4()}")
    made = await tx.value("INSERT INTO databases (name, connection_limit) VALUES ('acmesecretproject', 5) RETURNING id")
    named = "SELECT dbname FROM databases WHERE id = $1"
    assert await tx.value(named, made) == "db_" + made.hex[:20]
    await tx.run("UPDATE databases SET dbname = 'db_of_an_earlier_version_main' WHERE id = $1", made)
    await tx.run("UPDATE databases SET connection_limit = 3, generation = 2, wanted = 'deleted' WHERE id = $1", made)
    assert await tx.value(named, made) == "db_of_an_earlier_version_main"


@pytest.mark.parametrize(("state", "facts"), STATES)
async def test_a_state_follows_from_the_facts(tx: Tx, state: str, facts: dict[str, Any]) -> None:
    await tx.enter(f"org:{uuid.uuid4()}")
    row = {"wanted": "present", "generation": 0, "observed": 0, "suspended": False, "error": None} | facts
    made = (
        "INSERT INTO databases (name, connection_limit, wanted, generation, observed, suspended, error) VALUES ('main', 5, $1, $2, $3, $4, $5) RETURNING state"
    )
    assert await tx.value(made, *row.values()) == state
