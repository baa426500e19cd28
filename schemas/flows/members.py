"""The flows: a member gets another role, or is removed; here and in the databases."""

from schemas.org import Membership
from schemas.provisioning import Grant
from shared.flows import Flow, step
from shared.rows import present

change_role = Flow(
    "change a member's role", version=1, owner="org",
    steps=(
        step("role changed", Membership, on="updated", role=present),
        step("access asked for", Grant, by="provisioning.grant_access", state="pending", told="The new role does not reach into the databases yet."),
        step("access changed", Grant, within="30 s", state="applied", told="The new role does not reach into the databases yet."),
    ),
)  # fmt: skip

remove = Flow(
    "remove a member", version=1, owner="org",
    steps=(
        step("removed", Membership, on="deleted"),
        step("end of access asked for", Grant, by="provisioning.grant_access", state="revoking",
             told="The member may still get into the databases."),
        step("access revoked", Grant, within="30 s", state="revoked", told="The member's logins in the databases have not all ended yet."),
    ),
)  # fmt: skip
