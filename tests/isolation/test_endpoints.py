"""Every door of every service, found in OpenAPI: what is one tenant's is not there for another."""

import re

import httpx
import pytest

from tests.contracts.rest import OPERATIONS, Operation
from tests.flows.people import introduce
from tests.isolation.targets import TARGETS, Target, is_known, target_of
from tests.isolation.tenants import Tenant, look
from tests.mesh import Door, TestMesh

FOR_ANYBODY = {
    "user POST /users", "user POST /users/verify", "user POST /verifications", "user POST /sessions", "user POST /sessions/refresh",
    "user POST /password-resets", "user POST /password-resets/confirm", "user GET /.well-known/jwks.json", "billing GET /plans",
}  # fmt: skip
"""Doors that ask for nobody's identity: what they ask for, or show, is itself the secret or public."""

_LEAVES_NO_RECORD = {
    "notification": "SELECT count(*) AS n FROM notification.messages WHERE user_id = $1::text::uuid AND read_at IS NOT NULL",
    "user": 'SELECT count(*) AS n FROM "user".sessions WHERE user_id = $1::text::uuid AND ended_at IS NOT NULL',
}
"""Changes that the change log does not show."""


def test_every_door_that_asks_for_nobody_is_named() -> None:
    assert {str(o) for o in OPERATIONS if not o.secured} == FOR_ANYBODY
    assert {str(o) for o in OPERATIONS} >= TARGETS.keys()


def test_every_door_is_known_to_somebody() -> None:
    unknown = [str(o) for o in OPERATIONS if o.secured and not is_known(o)]
    assert not unknown, "say in TARGETS (tests/isolation/targets.py) for whom and with which ids they open"


@pytest.mark.parametrize("operation", [o for o in OPERATIONS if o.secured], ids=str)
def test_a_door_opens_for_its_tenant_and_is_not_there_for_a_stranger(mesh: TestMesh, ann: Tenant, eve: Tenant, operation: Operation) -> None:
    """The stranger tries first, so that the success of the tenant on the same ids shows that they are real and that nothing had happened.

    An operator who orders something about what is not stuck is let in, and told so.
    """
    target, stranger = target_of(operation, ann), _stranger(mesh, eve, operation)
    introduce(ann.owner, eve.owner)
    quiet = _unrecorded(mesh, operation.service, ann)
    for ids in _as_a_stranger_may_put_it(operation, target, eve):
        answer = operation.call(stranger, target.body, **ids)
        asked = {*target.ids.values()} | {operation.at(**ids)}
        assert _shows_nothing(answer, ann, asked), answer.text
        assert _is_refused(answer) or ("{" not in operation.path and target.who is not mesh.operator), f"{answer.status_code} {answer.text}"
    assert _changed_by(mesh, eve, operation.service, ann, target) == []
    assert _unrecorded(mesh, operation.service, ann) == quiet
    opened = operation.call(target.who, target.body, **target.ids)
    nothing_is_stuck = target.who is mesh.operator and (operation.method == "POST" or operation.path == "/parked/{id}")
    assert opened.is_success or (nothing_is_stuck and opened.status_code in (404, 409)), f"{opened.status_code} {opened.text}"


def _stranger(mesh: TestMesh, eve: Tenant, operation: Operation) -> Door:
    """One who signs out comes with a session for that."""
    return Door(mesh.urls, mesh.sign_in(eve.owner.email)) if operation.path == "/sessions/current" else eve.owner


def _as_a_stranger_may_put_it(operation: Operation, target: Target, eve: Tenant) -> list[dict[str, str]]:
    """The tenant's own ids; and through the stranger's own organization, where the door has one and more."""
    through_own = [target.ids | {"org_id": eve.org_id}] if {"org_id"} < set(re.findall(r"{(\w+)}", operation.path)) else []
    return [target.ids, *through_own]


def _is_refused(answer: httpx.Response) -> bool:
    """Not there; or a door for operators, which says so to everybody."""
    return answer.status_code == 404 or (answer.status_code == 403 and "operator" in answer.json()["detail"])


def _shows_nothing(answer: httpx.Response, ann: Tenant, asked: set[str]) -> bool:
    """Not even what the stranger knew already, unless as the address that was asked for, or as a position that they presented."""
    positions = _positions(answer.headers) - _positions(answer.request.headers)
    text = " ".join([answer.text, *positions, *(f"{name}: {value}" for name, value in answer.headers.items() if name != "mesh-position")])
    for known in sorted(asked, key=len, reverse=True):
        text = text.replace(known, "") if answer.status_code >= 400 else text
    return not [trace for trace in ann.traces if trace in text]


def _positions(headers: httpx.Headers) -> set[str]:
    return set(headers.get("Mesh-Position", "").split(", "))


def _changed_by(mesh: TestMesh, eve: Tenant, service: str, ann: Tenant, target: Target) -> list[str]:
    """Change records in the tenant's streams of which the stranger is the author."""
    streams = [f"org:{o}" for o in {ann.org_id, target.ids.get("org_id", ann.org_id)}] + [f"user:{ann.owner.user_id}", f"user:{ann.admin.user_id}"]
    sql = f"SELECT payload FROM \"{service}\".changes WHERE stream = ANY($1) AND payload::jsonb ->> 'by' = $2"
    return [r["payload"] for r in look(mesh, service, sql, streams, f"user:{eve.owner.user_id}")]


def _unrecorded(mesh: TestMesh, service: str, ann: Tenant) -> int:
    """Counted by the administrator, whom row-level security does not hide anything from."""
    sql = _LEAVES_NO_RECORD.get(service)
    return int(look(mesh, service, sql, ann.owner.user_id)[0]["n"]) if sql else 0


def test_the_author_of_a_change_is_found_in_the_log(mesh: TestMesh, ann: Tenant) -> None:
    """What finds a stranger's changes finds the owner's own."""
    assert _changed_by(mesh, ann, "org", ann, Target(ann.owner))
    assert _changed_by(mesh, ann, "user", ann, Target(ann.owner))
