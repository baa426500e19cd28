"""What an agent is told by its environment."""

from pathlib import Path

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    """Each field is the environment variable of its name in capitals. Times are in seconds."""

    model_config = SettingsConfigDict(extra="ignore", frozen=True, use_attribute_docstrings=True)

    data_plane_id: str = Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")
    """The name of the data plane, as in its topics."""
    data_plane_url: SecretStr
    """A superuser of the agent's own Postgres server; any database that the tenants do not have, mostly ``postgres``."""
    data_plane_host: str
    """Where customers reach the server: told to the control plane, never used by the agent itself."""
    data_plane_port: int = Field(ge=1, le=65535)
    """Its port."""
    agent_state_dir: Path
    """A folder of its own that outlives it: the last known good state."""

    kafka_bootstrap: str
    """host:port of a broker."""
    kafka_username: str
    """SCRAM user of this agent."""
    kafka_password: SecretStr
    """Its password."""
    kafka_security_protocol: str = Field("SASL_PLAINTEXT", pattern="^SASL_(PLAINTEXT|SSL)$")
    """``SASL_SSL`` outside of one machine."""

    agent_spare_databases: int = Field(4, ge=0, le=32)
    """Databases kept ready, so that a new one is a rename. One costs 8 MB of disk."""
    agent_parallel: int = Field(8, ge=1, le=32)
    """Tenants worked on at once; also the size of the connection pool."""
    agent_reconcile_every: float = Field(30, gt=0)
    """Seconds between two looks at the whole server."""
    agent_report_every: float = Field(60, gt=0)
    """Seconds between two full reports."""
    agent_start_jitter: float = Field(2, ge=0)
    """First full reports start within this time, so that agents that all come back at once do not report at once."""

    @property
    def assignments_topic(self) -> str:
        return f"dataplane.{self.data_plane_id}.assignments"

    @property
    def reports_topic(self) -> str:
        return f"dataplane.{self.data_plane_id}.reports"
