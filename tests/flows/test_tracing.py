"""One trace from the click to the database in the data plane and back."""

import secrets

from tests.mesh import PASSWORD, TestMesh, eventually


def test_a_sign_up_is_one_trace_through_every_service_to_the_agent(mesh: TestMesh) -> None:
    trace_id = secrets.token_hex(16)
    body = {"email": f"{trace_id}@example.com", "password": PASSWORD, "name": "Ann", "organization": "Traced"}
    started = mesh.anyone.post("user", "/users", body, headers={"traceparent": f"00-{trace_id}-{secrets.token_hex(8)}-01"})
    assert started.status_code == 202
    everyone = {"user", "org", "billing", "provisioning", "notification", "agent"}

    def none_is_missing() -> bool:
        missing = everyone - {service.partition("-")[0] for service in mesh.traces.services(trace_id)}
        assert not missing, f"no spans of {missing}"
        return True

    eventually(none_is_missing, timeout=20, what="one trace through all of them")
