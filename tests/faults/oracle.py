"""The oracle: what the load was promised, counted at the far end, whatever the fault was.

It reads the inbox, the data plane's catalog, the payment provider and the tables, and compares copies with what they copy.
"""

import asyncio
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field
from typing import Literal

import httpx

from tests.faults.client import Mail
from tests.faults.isolation import mixed
from tests.faults.lab import Lab
from tests.faults.ledger import Ledger
from tests.faults.order import disorder
from tests.faults.replicas import unlike

Kind = Literal["lost", "doubled", "disordered", "unlike", "hidden", "mixed", "surprise", "deviating"]
VERIFY, RESET, INVITATION, WELCOME, SUSPENDED, RESUMED = "Verify your", "Set a new", "invites you", "is ready", "is suspended", "is active again"


@dataclass(frozen=True)
class Finding:
    kind: Kind
    what: str


@dataclass
class Verdict:
    """What was found; a repeated mail is the one thing that a crash may do twice, and is told apart."""

    findings: list[Finding] = field(default_factory=list)
    repeated_mails: int = 0

    def count(self, *kinds: Kind) -> int:
        return sum(f.kind in kinds for f in self.findings)

    @property
    def may_heal(self) -> bool:
        """Nothing was found that time cannot mend."""
        return all(f.kind in ("lost", "unlike", "hidden") for f in self.findings)


@dataclass
class Oracle:
    """Judges one mesh by one ledger."""

    lab: Lab
    ledger: Ledger

    async def settled(self, patience: float = 60) -> Verdict:
        """The verdict, as soon as nothing is missing, or after so many seconds."""
        end = time.monotonic() + patience
        while True:
            verdict = await self.judge()
            if not verdict.findings or not verdict.may_heal or time.monotonic() > end:
                return verdict
            await asyncio.sleep(1)

    async def judge(self) -> Verdict:
        mails = await self._mails()
        verdict = Verdict(repeated_mails=len(mails) - len({m["message_id"] for m in mails}))
        verdict.findings += [Finding("surprise", s) for s in self.ledger.surprises]
        checks = (
            self._people(),
            self._mailed(mails),
            self._organizations(),
            self._customers(),
            self._memberships(),
            self._databases(),
            self._flows(),
            self._log(),
        )
        for check in checks:
            verdict.findings += [f async for f in check]
        verdict.findings += [Finding("unlike", what) for what in await unlike(self.lab)]
        verdict.findings += [Finding("mixed", what) for what in await mixed(self.lab)]
        verdict.findings += [Finding("disordered", what) for what in await disorder(self.lab)]
        return verdict

    # The far ends

    async def _mails(self) -> list[Mail]:
        async with httpx.AsyncClient(timeout=60) as http:
            return list((await http.get(self.lab.document["mail"]["url"])).json())

    async def _customers_at_stripe(self) -> Counter[str]:
        stripe, after, found = self.lab.document["stripe"], "", Counter[str]()
        async with httpx.AsyncClient(timeout=60, headers={"Authorization": f"Bearer {stripe['api_key']}"}) as http:
            while True:
                page = (await http.get(f"{stripe['url']}/v1/customers", params={"limit": 100} | ({"starting_after": after} if after else {}))).json()
                found.update(c["metadata"].get("mesh_id", "") for c in page["data"])
                if not page["has_more"]:
                    return found
                after = page["data"][-1]["id"]

    # What is owed

    async def _people(self) -> AsyncIterator[Finding]:
        rows = await self.lab.rows('SELECT email, verified_at IS NOT NULL AS verified FROM "user".users WHERE email = ANY($1)', list(self.ledger.sign_ups))
        for finding in _counted("person", self.ledger.sign_ups, (r["email"] for r in rows)):
            yield finding
        verified = {r["email"] for r in rows if r["verified"]}
        for email in self.ledger.verified - verified:
            yield Finding("lost", f"the address of {email} is not verified")

    async def _mailed(self, mails: list[Mail]) -> AsyncIterator[Finding]:
        """By Message-ID: each mail that follows from a request once, and none besides."""
        owners = await self._owners()
        owed = _owed_mails(self.ledger, owners)
        ours = set(self.ledger.sign_ups)
        sent = Counter({key: len(ids) for key, ids in _by_kind(mails, ours).items()})
        for key in owed.keys() | sent.keys():
            if sent[key] < owed[key]:
                yield Finding("lost", f"mails {key[1]!r} to {key[0]}: {sent[key]} of {owed[key]}")
            elif sent[key] > owed[key]:
                yield Finding("doubled", f"mails {key[1]!r} to {key[0]}: {sent[key]} of {owed[key]}")

    async def _owners(self) -> dict[str, list[str]]:
        """Organization → addresses of its owners and admins, when nobody else ever was one: those whose mails can be counted."""
        rows = await self.lab.rows(
            'SELECT m.org_id::text, array_agg(u.email) AS emails FROM org.memberships m JOIN "user".users u ON u.id = m.user_id '
            "WHERE m.org_id = ANY($1::uuid[]) AND m.role = 'owner' GROUP BY 1",
            list(self.ledger.suspensions),
        )
        return {r["org_id"]: r["emails"] for r in rows}

    async def _organizations(self) -> AsyncIterator[Finding]:
        """Each sign-up has its organization, its owner, its plan with a customer, and its first database, ready."""
        names = [name for name in self.ledger.sign_ups.values() if name]
        rows = await self.lab.rows(
            """SELECT o.name, (SELECT count(*) FROM org.memberships m WHERE m.org_id = o.org_id AND m.role = 'owner') AS owners,
                      (SELECT count(*) FROM billing.subscriptions s WHERE s.org_id = o.org_id AND s.customer_state = 'ready') AS plans,
                      (SELECT count(*) FROM provisioning.databases d WHERE d.org_id = o.org_id AND d.name = 'main' AND d.error IS NULL
                          AND d.observed = d.generation) AS firsts
               FROM org.organizations o WHERE o.name = ANY($1)""",
            names,
        )
        for finding in _counted("organization", names, (r["name"] for r in rows)):
            yield finding
        for r in rows:
            for what in ("owners", "plans", "firsts"):
                if r[what] != 1:
                    yield Finding("lost" if r[what] < 1 else "doubled", f"{what} of {r['name']}: {r[what]}")
        states = await self.lab.rows("SELECT org_id::text, state FROM org.organizations WHERE org_id = ANY($1::uuid[])", list(self.ledger.suspensions))
        for r in states:
            owed = "suspended" if self._is_suspended(r["org_id"]) else "active"
            if r["state"] != owed:
                yield Finding("lost", f"organization {r['org_id']} is {r['state']}, not {owed}")

    def _is_suspended(self, org_id: str) -> bool:
        return self.ledger.suspensions[org_id] > self.ledger.resumptions[org_id]

    async def _customers(self) -> AsyncIterator[Finding]:
        names = [name for name in self.ledger.sign_ups.values() if name]
        rows = await self.lab.rows("SELECT org_id::text FROM org.organizations WHERE name = ANY($1)", names)
        ours, at_stripe = {r["org_id"] for r in rows}, await self._customers_at_stripe()
        for finding in _counted("customer at the payment provider of", ours, (i for i in at_stripe.elements() if i in ours)):
            yield finding

    async def _memberships(self) -> AsyncIterator[Finding]:
        """The role, the grant, and in each open database a login that belongs to its group."""
        orgs = list({org for org, _ in self.ledger.members})
        rows = await self.lab.rows("SELECT org_id::text, user_id::text, role FROM org.memberships WHERE org_id = ANY($1::uuid[])", orgs)
        there = {(r["org_id"], r["user_id"]): r["role"] for r in rows}
        rows = await self.lab.rows("SELECT org_id::text, user_id::text, role, state FROM provisioning.grants WHERE org_id = ANY($1::uuid[])", orgs)
        granted = {(r["org_id"], r["user_id"]): r["role"] if r["state"] == "applied" else None if r["state"] == "revoked" else r["state"] for r in rows}
        for key, role in self.ledger.members.items():
            if there.get(key) != role:
                yield Finding("lost", f"member {key}: {there.get(key)} instead of {role}")
            if granted.get(key) != role:
                yield Finding("lost", f"grant {key}: {granted.get(key)} instead of {role}")
        rows = await self.lab.rows(
            "SELECT l.username, l.org_id::text, l.user_id::text FROM provisioning.logins l JOIN provisioning.databases d ON d.id = l.database_id "
            "WHERE l.org_id = ANY($1::uuid[]) AND d.wanted = 'present' AND d.observed = d.generation", orgs,
        )  # fmt: skip
        roles = {r["rolname"] for r in await self.lab.rows("SELECT rolname FROM pg_roles", url=self.lab.data_plane_url)}
        for r in rows:
            owed = self.ledger.members.get((r["org_id"], r["user_id"]))
            if (r["username"] in roles) != (owed is not None):
                yield Finding(
                    "lost", f"role {r['username']} at the data plane is {'there' if r['username'] in roles else 'not there'}, for a member who is {owed}"
                )

    async def _databases(self) -> AsyncIterator[Finding]:
        """Each as it was last asked for, in the tables and in the data plane's catalog."""
        rows = await self.lab.rows(
            "SELECT id::text, dbname, state, wanted, connection_limit FROM provisioning.databases WHERE id = ANY($1::uuid[])", list(self.ledger.databases)
        )
        found = {r["id"]: r for r in rows}
        catalog = {
            r["datname"]: (r["datallowconn"] and r["datconnlimit"] != 0, r["datconnlimit"])
            for r in await self.lab.rows("SELECT datname, datallowconn, datconnlimit FROM pg_database", url=self.lab.data_plane_url)
        }
        for id, owed in self.ledger.databases.items():
            r = found.get(id)
            open_state = "suspended" if self._is_suspended(owed.org_id) else "ready"
            if r is None or r["state"] != (open_state if owed.present else "deleted") or r["connection_limit"] != owed.limit:
                yield Finding("lost", f"database {id} is {r}, not {owed}")
            elif (real := catalog.get(r["dbname"])) is None or (owed.present and real != (True, owed.limit)) or (not owed.present and real[0]):
                yield Finding("lost", f"database {r['dbname']} at the data plane: {real}, not {owed}")
        if len(found) < len(self.ledger.databases):
            yield Finding("lost", f"{len(self.ledger.databases) - len(found)} databases")
        extra = await self.lab.rows(
            "SELECT id::text, name FROM provisioning.databases WHERE org_id = ANY($1::uuid[]) AND id <> ALL($2::uuid[])",
            list({d.org_id for d in self.ledger.databases.values()}), list(self.ledger.databases),
        )  # fmt: skip
        for r in extra:
            yield Finding("doubled", f"database {r['id']} {r['name']} was never asked for")

    async def _flows(self) -> AsyncIterator[Finding]:
        """Every flow that was given out is known, and has ended as it is defined or waits for a person who takes their time: what has not
        is lost work, and what is not even shown is hidden.
        """
        rows = await self.lab.rows(
            "SELECT id::text, flow, state, step, finished_at, deviations FROM console.flows WHERE id = ANY($1::uuid[])", list(self.ledger.flows)
        )
        shown = {r["id"]: r for r in rows}
        for id, kind in self.ledger.flows.items():
            r = shown.get(id)
            if r is None:
                yield Finding("hidden", f"flow {id} ({kind}) is not shown")
            elif r["finished_at"] is None and r["state"] != ("waiting_person" if id in self.ledger.waiting else "waiting_timer"):
                yield Finding("lost", f"flow {id} ({r['flow']}) is {r['state']} before {r['step']}")
            elif r["deviations"]:
                yield Finding("deviating", f"flow {id} ({r['flow']}) went otherwise than it is defined: {r['deviations']}")

    async def _log(self) -> AsyncIterator[Finding]:
        """What the kit itself says is missing, held or parked."""
        for service in self.lab.document["services"]:
            rows = await self.lab.rows(
                f"""SELECT (SELECT count(*) FROM "{service}".held) AS held, (SELECT count(*) FROM "{service}".parked) AS parked,
                           (SELECT count(*) FROM "{service}".expected e JOIN "{service}".positions p USING (reader, source, stream) WHERE p.seq < e.seq) AS expected"""
            )
            for what, count in rows[0].items():
                if count:
                    yield Finding("lost", f"{service}: {count} {what}")


def _counted(what: str, owed: Iterable[str], found: Iterable[str]) -> Iterable[Finding]:
    """Exactly one of each."""
    counts = Counter(found)
    for one in owed:
        if counts[one] != 1:
            yield Finding("lost" if not counts[one] else "doubled", f"{what} {one}: {counts[one]}")


def _owed_mails(ledger: Ledger, owners: dict[str, list[str]]) -> Counter[tuple[str, str]]:
    owed: Counter[tuple[str, str]] = Counter()
    owed.update((email, VERIFY) for email in ledger.sign_ups)
    owed.update((email, WELCOME) for email, organization in ledger.sign_ups.items() if organization)
    owed.update({(email, RESET): n for email, n in ledger.reset_mails.items()})
    owed.update((email, INVITATION) for email in ledger.invitations.values())
    for counts, subject in ((ledger.suspensions, SUSPENDED), (ledger.resumptions, RESUMED)):
        owed.update({(email, subject): n for org, n in counts.items() for email in owners.get(org, [])})
    return owed


def _by_kind(mails: Iterable[Mail], to: set[str]) -> dict[tuple[str, str], set[str]]:
    """(address, kind of mail) → its Message-IDs."""
    found: dict[tuple[str, str], set[str]] = defaultdict(set)
    for mail in mails:
        kind = next((k for k in (VERIFY, RESET, INVITATION, WELCOME, SUSPENDED, RESUMED) if k in mail["subject"]), mail["subject"])
        for address in mail["to"]:
            if address in to:
                found[address, kind].add(mail["message_id"])
    return found
