"""The flow: a person proves that an address is theirs."""

from schemas.notification import Message
from schemas.user import LinkRequest
from shared.flows import Flow, step

verify = Flow(
    "verify an address", version=1, owner="user",
    steps=(
        step("asked", LinkRequest, on="inserted", purpose="verify"),
        step("mail queued", Message, on="inserted", by="notification.mail_the_link", template="verify",
             told="We could not write the mail with your link. Ask for a new one at POST /verifications."),
        step("mailed", Message, by="notification.send_the_mail", within="2 min", template="verify", state="sent", failing={"state": "failed"},
             told="The mail with your link could not be delivered. Check the address."),
        step("verified", LinkRequest, on="updated", within="24 hours", waits_for="the person to follow the link in the mail", purpose="verify", state="used",
             told="The link has expired. Ask for a new one at POST /verifications."),
    ),
    cancelled_by=(LinkRequest.became(purpose="verify", state="expired"),),
)  # fmt: skip
