"""A service with two reactions more than it had: ``python -m tests.faults.newcomer <service>``.

Both note every new organization in ``newcomers``; one of them, which is to catch up, those that were there before it as well.
"""

import runpy
import sys

from schemas.org import Organization
from shared.reactions import on
from shared.tx import Tx

MET, GREETED = "met", "greeted"
TABLES = """
CREATE TABLE newcomers (org_id uuid NOT NULL DEFAULT tenant(), n bigint GENERATED ALWAYS AS IDENTITY, how text NOT NULL, PRIMARY KEY (org_id, n));
SELECT tenant_table('newcomers');
CREATE UNIQUE INDEX met_once ON newcomers (org_id) WHERE how = 'met';
CREATE TABLE late_databases (org_id uuid NOT NULL, id uuid NOT NULL, name text NOT NULL, state text NOT NULL, PRIMARY KEY (org_id, id));
SELECT replica_table('late_databases', source => 'provisioning.databases');
"""
"""What they write, and a copy of rows of a service that was not read before."""


async def meet_every_organization(tx: Tx, _: Organization) -> None:
    await tx.run("INSERT INTO newcomers (how) VALUES ($1) ON CONFLICT DO NOTHING", MET)


async def greet_the_new_organization(tx: Tx, _: Organization) -> None:
    await tx.run("INSERT INTO newcomers (how) VALUES ($1)", GREETED)


if __name__ == "__main__":
    for function, catch_up in ((meet_every_organization, True), (greet_the_new_organization, False)):
        function.__module__ = f"services.{sys.argv[1]}.reactions"
        on(Organization.inserted, catch_up=catch_up)(function)
    runpy.run_module(f"services.{sys.argv[1]}.main", run_name="__main__")
