"""What may be said to others about a failure: what is wrong and what to do, no secrets."""

import re

import asyncpg

_SECRET = re.compile(r"SCRAM-SHA-256\$\S+|postgres(ql)?://\S+|password\s*[=:]\s*\S+", re.IGNORECASE)
_AWAY = (asyncpg.PostgresConnectionError, asyncpg.OperatorInterventionError, asyncpg.InterfaceError, OSError)
_ADVICE = {
    "53300": "the data plane's server has no connection left: raise max_connections or wait",
    "53100": "the data plane's disk is full: free space",
    "42501": "the agent's own role lacks a right: DATA_PLANE_URL must be of a superuser",
    "28P01": "the agent's own password is refused: correct DATA_PLANE_URL",
    "55006": "a session is still in the way, it is tried again",
    "55P03": "a lock was not granted in time, it is tried again",
    "57014": "it took too long and was cancelled, it is tried again",
}


def is_away(error: Exception) -> bool:
    """Whether it says that the server cannot be reached, not that it refuses something."""
    return (isinstance(error, _AWAY) and not isinstance(error, asyncpg.QueryCanceledError)) or not isinstance(error, asyncpg.PostgresError)


def explain(error: Exception) -> str:
    """At most 300 characters."""
    if is_away(error):
        return "the data plane's Postgres server cannot be reached, it is tried again"
    state = getattr(error, "sqlstate", None) or "?"
    advice = _ADVICE.get(state, "it is tried again")
    return _SECRET.sub("…", f"{error.args[0] if error.args else 'error'} (SQLSTATE {state}): {advice}")[:300]
