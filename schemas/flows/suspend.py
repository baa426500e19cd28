"""The flows: an organization is suspended, so that nobody gets into its databases, and resumed."""

from schemas.org import Organization
from schemas.provisioning import Tenant
from shared.flows import Flow, step
from shared.rows import present

suspend = Flow(
    "suspend an organization", version=1, owner="org",
    steps=(
        step("suspended", Organization, on="updated", state="suspended", suspended_by=present),
        step("data plane told", Tenant, by="provisioning.suspend_or_resume", state="suspending", failing={"error": present},
             told="The databases are still open."),
        step("databases closed", Tenant, within="30 s", state="suspended", told="Sessions in the databases have not all ended yet."),
    ),
)  # fmt: skip

resume = Flow(
    "resume an organization", version=1, owner="org",
    steps=(
        step("resumed", Organization, on="updated", state="active"),
        step("data plane told", Tenant, by="provisioning.suspend_or_resume", state="resuming", failing={"error": present},
             told="The databases are not open again yet."),
        step("databases open", Tenant, within="30 s", state="active", told="The databases are not open again yet."),
    ),
)  # fmt: skip
