"""Signatures over what we give out and get back unchanged: list cursors, refresh tokens."""

import hashlib
import hmac

from shared.settings import settings


def signature(purpose: str, text: str) -> str:
    """128 bits of HMAC-SHA256 in hexadecimal, the same of every replica. What is signed for one purpose is good for no other."""
    return hmac.new(settings().signing_secret.get_secret_value().encode(), f"{purpose}\n{text}".encode(), hashlib.sha256).hexdigest()[:32]


def is_signed(purpose: str, text: str, signed: str) -> bool:
    """Whether ``signed`` is our signature; both may come from anybody."""
    return hmac.compare_digest(signature(purpose, text).encode(), signed.encode(errors="replace"))
