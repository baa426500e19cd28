"""The pages behind the links in mails: for who has no front end yet, what to send where.

They do nothing by themselves, because programs that look through mails open links too.
"""

from html import escape
from uuid import UUID

from shared.settings import settings

_PAGE = """<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{title}</title></head>
<body>
<h1>{title}</h1>
<p>{what}</p>
<pre>{command}</pre>
<p>Opening this page has changed nothing.</p>
</body>
</html>
"""


def verify(token: str) -> str:
    what = "To confirm that the address is yours, send this. It works once, within a day of the mail; POST /verifications mails another."
    return _page("Verify your address", what, f"{settings().user_url}/users/verify", f'{{"token": "{token}"}}')


def reset(token: str) -> str:
    what = "To set a new password, put it in and send this. It works once, within half an hour of the mail, and signs every device out."
    return _page("Set a new password", what, f"{settings().user_url}/password-resets/confirm", f'{{"token": "{token}", "password": "…"}}')


def invitation(invitation_id: UUID) -> str:
    what = "To accept, sign in with the address that was invited, and send this with your access token."
    return _page("You are invited", what, f"{settings().org_url}/invitations/{invitation_id}/accept", None)


def _page(title: str, what: str, url: str, body: str | None) -> str:
    """``body`` is JSON without a quote that a shell would take for its own; None for a request of who is signed in."""
    header = "authorization: Bearer …" if body is None else "content-type: application/json"
    command = f"curl -X POST '{url}' -H '{header}'" + (f" -d '{body}'" if body else "")
    return _PAGE.format(title=escape(title), what=escape(what), command=escape(command, quote=False))
