"""The flow: a teammate is invited, accepts, and has access to the databases."""

from schemas.notification import Message
from schemas.org import Invitation, Membership
from schemas.provisioning import Grant
from shared.flows import Flow, step

invite = Flow(
    "invite a teammate", version=1, owner="org",
    steps=(
        step("invited", Invitation, on="inserted", state="pending"),
        step("mail queued", Message, on="inserted", by="notification.mail_the_invitation", template="invitation",
             told="The invitation is made, its mail is not. Withdraw it and invite again."),
        step("mailed", Message, by="notification.send_the_mail", within="2 min", template="invitation", state=("sent", "cancelled"), failing={"state": "failed"},
             told="The invitation could not be delivered. Check the address."),
        step("accepted", Invitation, on="updated", within="7 days", waits_for="the person invited", state="accepted",
             told="The invitation has not been accepted in time."),
        step("member", Membership, on="inserted", within="5 s", told="The invitation is accepted; the membership is not there yet."),
        step("access asked for", Grant, by="provisioning.grant_access", state="pending", told="The member has no access to the databases yet."),
        step("access granted", Grant, within="30 s", state="applied", told="The member's access to the databases is not ready yet."),
    ),
    cancelled_by=(Invitation.became(state=("withdrawn", "expired")),),
)  # fmt: skip
