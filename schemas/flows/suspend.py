"""The flows: an organization is suspended, so that nobody gets into its databases, and resumed."""

from schemas.org import Organization
from schemas.provisioning import Tenant
from shared.flows import Flow, step

suspend = Flow(
    "suspend an organization", version=1, owner="org",
    steps=(
        step("suspended", Organization, on="updated", state="suspended"),
        step("databases closed", Tenant, within="30 s", state="suspended", told="Sessions in the databases have not all ended yet."),
    ),
)  # fmt: skip

resume = Flow(
    "resume an organization", version=1, owner="org",
    steps=(
        step("resumed", Organization, on="updated", state="active"),
        step("databases open", Tenant, within="30 s", state="active", told="The databases are not open again yet."),
    ),
)  # fmt: skip
