"""Links in mails: the keys that sign their tokens, and the tokens, which are nowhere but in the mail."""

from datetime import datetime
from uuid import UUID

import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from schemas.links import ALGORITHM, AUDIENCE
from shared.errors import NotYet
from shared.settings import settings
from shared.tx import Tx

KEY_LIFE, LONGEST_LINK = "90 days", "2 days"


async def rotate_key(tx: Tx) -> None:
    """Makes a key when there is none or the newest is old, and drops those whose last link has expired."""
    await tx.enter("global:link_keys")
    await tx.run("DELETE FROM link_keys WHERE created_at < now() - $1::text::interval - $2::text::interval", KEY_LIFE, LONGEST_LINK)
    if await tx.value("SELECT true FROM link_keys WHERE created_at > now() - $1::text::interval LIMIT 1", KEY_LIFE):
        return
    private = Ed25519PrivateKey.generate()
    await tx.run(
        "INSERT INTO link_keys (public_key, private_key) VALUES ($1, $2)",
        private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode(),
        private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode(),
    )


async def with_token(tx: Tx, purpose: str, request_id: UUID, user_id: UUID, expires_at: datetime) -> str:
    """The link of one request, with a token signed just now. Raises :class:`NotYet` before the first key is made."""
    keys = await tx.records("SELECT id, private_key FROM link_keys ORDER BY created_at DESC LIMIT 1")
    if not keys:
        raise NotYet("the first link key is being made")
    claims = {"aud": AUDIENCE, "jti": str(request_id), "sub": str(user_id), "purpose": purpose, "exp": expires_at}
    token = jwt.encode(claims, keys[0]["private_key"], algorithm=ALGORITHM, headers={"kid": str(keys[0]["id"])})
    return f"{settings().public_url}/{purpose}?token={token}"


def to_invitation(invitation_id: UUID) -> str:
    """No secret: only the verified owner of the invited address can accept."""
    return f"{settings().public_url}/invitations/{invitation_id}"
