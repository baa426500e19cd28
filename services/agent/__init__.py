"""The agent: makes one data plane's Postgres server match what the control plane wants of it."""
