"""The audit trail: who did what when, in every service."""

from tests.console.test_flows import ended
from tests.mesh import Customer, TestMesh, eventually


def test_an_admin_sees_who_changed_what_in_every_service_and_never_a_value(customer: Customer) -> None:
    org = customer.org_id
    assert ended(customer, customer.flow_id)["state"] == "done"
    assert customer.patch("org", f"/orgs/{org}", {"name": "A secret new name"}).status_code == 200
    page = customer.get("console", f"/orgs/{org}/audit?limit=200")
    assert page.status_code == 200, page.text
    trail = page.json()["items"]
    assert {e["service"] for e in trail} >= {"org", "billing", "provisioning", "notification"}
    renamed = next(e for e in trail if e["table"] == "organizations" and e["op"] == "update")
    assert renamed["by"] == f"user:{customer.user_id}"
    assert renamed["key"] == {"org_id": org}
    assert renamed["columns"] == ["name"]
    made = next(e for e in trail if e["table"] == "subscriptions" and e["op"] == "insert")
    assert (made["by"], made["flow_id"]) == (f"user:{customer.user_id}", customer.flow_id), "the person who began it, through every service"
    assert made["cause"].startswith(f"org/org:{org}/")
    assert [e["at"] for e in trail] == sorted((e["at"] for e in trail), reverse=True)
    assert "A secret new name" not in page.text
    assert customer.email not in page.text


def test_the_trail_is_for_the_organization_s_own_admins(mesh: TestMesh, customer: Customer) -> None:
    org = customer.org_id
    eventually(lambda: customer.get("console", f"/orgs/{org}/audit").json()["items"])
    stranger = mesh.sign_up()
    assert stranger.get("console", f"/orgs/{org}/audit").status_code == 404
    assert org not in stranger.get("console", f"/orgs/{stranger.org_id}/audit").text
    assert mesh.anyone.get("console", f"/orgs/{org}/audit").status_code == 401
