"""Other products doing the same work: durable flows of three steps, each step one row in the same Postgres.

Optional: ``uv sync --group peers`` for the packages; the Restate server comes from npm.
"""
