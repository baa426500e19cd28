"""Passwords: which are good enough, and how they are kept."""

import asyncio

import argon2

from shared.errors import Refused

_hasher = argon2.PasswordHasher(time_cost=2, memory_cost=19 * 1024, parallelism=1)
_COMMON = frozenset({"password", "passwort", "qwertyuiop", "1234567890", "letmein", "iloveyou", "administrator", "welcome"})
MIN_PASSWORD = 10
_NOBODY = "$argon2id$v=19$m=19456,t=2,p=1$AAAAAAAAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"


class WeakPassword(Refused):
    """The password is too easy to guess. Take at least 10 characters that are not your name or address."""

    status = 422


def check(password: str, *about: str) -> None:
    """Raises :class:`WeakPassword` for a password that is short, common, or made of the person's own data."""
    low = password.lower()
    words = [w.lower() for text in about for w in text.replace("@", " ").split() if len(w) > 3]
    if len(password) < MIN_PASSWORD or len(set(low)) < 5 or any(c in low for c in _COMMON) or any(w in low for w in words):
        raise WeakPassword


async def hashed(password: str) -> str:
    """argon2id, off the event loop: it takes tens of milliseconds of a core."""
    return await asyncio.to_thread(_hasher.hash, password)


async def matches(password: str, password_hash: str | None) -> bool:
    """Takes as long for a person who does not exist, whose hash is ``None``."""
    try:
        return await asyncio.to_thread(_hasher.verify, password_hash or _NOBODY, password)
    except argon2.exceptions.VerificationError:
        return False
