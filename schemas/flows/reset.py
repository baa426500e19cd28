"""The flow: a person who forgot their password sets a new one."""

from schemas.notification import Message
from schemas.user import EndedSession, LinkRequest
from shared.flows import Flow, step

reset = Flow(
    "reset a password", version=1, owner="user",
    steps=(
        step("asked", LinkRequest, on="inserted", purpose="reset"),
        step("mail queued", Message, on="inserted", by="notification.mail_the_link", template="reset",
             told="We could not write the mail with your link. Ask for a new one at POST /password-resets."),
        step("mailed", Message, by="notification.send_the_mail", within="2 min", template="reset", state="sent", failing={"state": "failed"},
             told="The mail with your link could not be delivered. Check the address."),
        step("password set", LinkRequest, on="updated", within="30 min", waits_for="the person to follow the link in the mail", purpose="reset", state="used",
             told="The link has expired. Ask for a new one at POST /password-resets."),
        step("signed out", EndedSession, on="inserted", within="10 s", optional=True,
             told="Older devices may still be signed in. End their sessions in your profile."),
    ),
    cancelled_by=(LinkRequest.became(purpose="reset", state="expired"),),
)  # fmt: skip
