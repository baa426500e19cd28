"""The flows: a database is made, deleted, restored, changed; a member gets credentials for it."""

from schemas.provisioning import Database, Login
from shared.flows import Flow, step

create = Flow(
    "create a database", version=1, owner="provisioning",
    steps=(
        step("requested", Database, on="inserted"),
        step("ready", Database, within="30 s", state="ready", failing={"state": "failed"},
             told="Your database is not ready yet. We are looking into it."),
    ),
)  # fmt: skip

delete = Flow(
    "delete a database", version=1, owner="provisioning",
    steps=(
        step("deleted", Database, on="updated", wanted="deleted"),
        step("closed", Database, on="updated", within="30 s", state="deleted", failing={"state": "failed"},
             told="Sessions in the database have not all ended yet."),
        step("data dropped", Database, on="updated", by="provisioning.purge_the_database", within="25 hours", state="gone",
             waits_for="the time in which it can be restored", waits_kind="timer", told="The data of the deleted database is still there."),
    ),
)  # fmt: skip

undelete = Flow(
    "restore a database", version=1, owner="provisioning",
    steps=(
        step("restored", Database, on="updated", wanted="present"),
        step("open again", Database, on="updated", within="30 s", state="ready", failing={"state": "failed"},
             told="Your database is not open again yet. Its data is kept."),
    ),
)  # fmt: skip

change = Flow(
    "change a database", version=1, owner="provisioning",
    steps=(
        step("changed", Database, on="updated"),
        step("applied", Database, on="updated", within="30 s", state="ready", failing={"state": "failed"},
             told="The change has not reached your database yet."),
    ),
)  # fmt: skip
"""After those above, whose first steps are changes as well."""

credentials = Flow(
    "get credentials", version=1, owner="provisioning",
    steps=(
        step("issued", Login, on="updated"),
        step("usable", Login, on="updated", within="30 s", credentials="ready", failing={"state": "failed"},
             told="Your new credentials do not work yet. Ask for new ones if they still do not in a minute."),
    ),
)  # fmt: skip
