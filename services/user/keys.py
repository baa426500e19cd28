"""The public keys of access tokens in the form the world reads (RFC 7517, RFC 8037)."""

from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from jwt.algorithms import OKPAlgorithm

from shared.tx import Tx


async def public_key_set(tx: Tx) -> list[dict[str, Any]]:
    rows = await tx.records("SELECT id, public_key FROM signing_keys WHERE not_after IS NULL OR not_after > now() ORDER BY not_before")
    return [_jwk(str(r["id"]), r["public_key"]) for r in rows]


def _jwk(key_id: str, pem: str) -> dict[str, Any]:
    key = load_pem_public_key(pem.encode())
    if not isinstance(key, Ed25519PublicKey):
        raise TypeError("a signing key is an Ed25519 key")
    return OKPAlgorithm.to_jwk(key, as_dict=True) | {"kid": key_id, "use": "sig", "alg": "EdDSA"}
