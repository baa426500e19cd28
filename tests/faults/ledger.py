"""The ledger: everything the mesh has acknowledged to the load, which is what it now owes."""

from collections import Counter
from dataclasses import dataclass, field


@dataclass
class OwedDatabase:
    """What the last acknowledged request about a database asked for."""

    org_id: str
    name: str
    limit: int
    present: bool = True


@dataclass
class Ledger:
    """Written by the load the moment an answer arrives, never before."""

    sign_ups: dict[str, str | None] = field(default_factory=dict)
    """Address → name of the organization that came with it."""
    verified: set[str] = field(default_factory=set)
    reset_mails: Counter[str] = field(default_factory=Counter)
    """Address → how many resets it asked for."""
    passwords: dict[str, str] = field(default_factory=dict)
    """Address → the password it was last given."""
    invitations: dict[str, str] = field(default_factory=dict)
    """Invitation → the address that was invited."""
    members: dict[tuple[str, str], str | None] = field(default_factory=dict)
    """(organization, person) → role, None for one who was removed."""
    suspensions: Counter[str] = field(default_factory=Counter)
    resumptions: Counter[str] = field(default_factory=Counter)
    databases: dict[str, OwedDatabase] = field(default_factory=dict)
    flows: dict[str, str] = field(default_factory=dict)
    """Flow → its kind."""
    waiting: set[str] = field(default_factory=set)
    """Flows whose person has the mail and takes their time."""
    surprises: list[str] = field(default_factory=list)
    """Answers that no promise allows: a refusal of what was asked once, a server error."""
