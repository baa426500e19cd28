"""Organizations through their doors."""

from tests.mesh import Customer, TestMesh, eventually


def test_a_sign_up_makes_the_organization_with_its_owner(mesh: TestMesh) -> None:
    ann = mesh.sign_up(organization="Ann's")
    orgs = eventually(lambda: ann.get("org", "/orgs").json()["items"])
    assert [(o["name"], o["role"]) for o in orgs] == [("Ann's", "owner")]


def test_a_stranger_sees_no_organization(customer: Customer, mesh: TestMesh) -> None:
    stranger = mesh.sign_up()
    assert customer.get("org", f"/orgs/{customer.org_id}").status_code == 200
    assert stranger.get("org", f"/orgs/{customer.org_id}").status_code == 404
    assert customer.org_id not in stranger.get("org", "/orgs").text
