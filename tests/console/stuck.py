"""Makes flows that are stuck, and looks at them as an operator does."""

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.mesh import Customer, Door, TestMesh, eventually

REACTION = "billing.start_the_subscription"


@contextmanager
def failing_subscriptions(mesh: TestMesh, name: str) -> Iterator[None]:
    """While this lasts, billing cannot start the subscription of an organization of this name."""
    function = f"billing.fail_{secrets.token_hex(4)}"
    mesh.rows(f"CREATE FUNCTION {function}() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'the plan has a hole'; END $$")
    mesh.rows(
        f"CREATE TRIGGER {function.partition('.')[2]} BEFORE INSERT ON billing.subscriptions FOR EACH ROW "
        f"WHEN (NEW.customer_name = '{name}') EXECUTE FUNCTION {function}()"
    )
    try:
        yield
    finally:
        mesh.rows(f"DROP FUNCTION {function} CASCADE")


def parked_of(mesh: TestMesh, customer: Customer) -> dict[str, Any]:
    """What operators see parked for the customer's sign-up, as soon as they do."""

    def look() -> dict[str, Any] | None:
        found = mesh.operator.get("console", f"/parked?actor={REACTION}&limit=200").json()["items"]
        return next((one for one in found if one["flow_id"] == customer.flow_id), None)

    return eventually(look, timeout=30, what="what is parked")  # type: ignore[return-value]  # it waits until there is one


def let_die(mesh: TestMesh, customer: Customer) -> None:
    """As if it had failed for a day."""
    mesh.rows(
        f"""DO $$ DECLARE p record; BEGIN
            PERFORM set_config('search_path', 'billing', true);
            SELECT * INTO p FROM parked WHERE flow_id = '{customer.flow_id}';
            PERFORM lock_streams(ARRAY[p.target]);
            UPDATE parked SET state = 'dead' WHERE flow_id = '{customer.flow_id}';
        END $$"""
    )


def outcomes(who: Door, given: dict[str, Any]) -> list[str]:
    """What came of the orders that were given, as soon as something has come of each."""

    def look() -> list[str]:
        found = [who.get("console", f"/orders/{one['id']}").json()["results"] for one in given["orders"]]
        return [r["outcome"] for results in found for r in results] if all(found) else []

    return eventually(look, what="what came of the orders")
