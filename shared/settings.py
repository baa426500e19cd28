"""The one place where services read the environment."""

from functools import cache
from typing import Literal

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings


class Settings(BaseSettings):
    """What a service is told from outside. Every field is an environment variable of the same name in capitals."""

    database_url: SecretStr = Field(default=SecretStr(""), description="The service's own Postgres, as its application role")
    database_pool: int = Field(default=8, description="Connections a process holds at most, besides the one that shows that it lives")
    kafka_bootstrap: str = Field(default="127.0.0.1:9092", description="host:port of a broker")
    kafka_username: str = Field(default="", description="SCRAM user of this service")
    kafka_password: SecretStr = Field(default=SecretStr(""), description="Its password")
    kafka_security_protocol: str = Field(default="SASL_PLAINTEXT", description="SASL_SSL outside of one machine")
    kafka_instance: str = Field(default="", description="This replica's own name: started again it takes its place in Kafka's groups at once")
    mesh_services: str = Field(default="user,org,billing,notification,provisioning,console", description="Services whose changes are read")
    data_planes: str = Field(default="local", description="Data planes whose agents are listened to (provisioning)")
    own_feed_topics: int = Field(default=1000, ge=0, description="Organizations with a feed topic of their own; later ones share pool topics (provisioning)")
    http_host: str = Field(default="127.0.0.1", description="Where the REST API listens")
    http_port: int = Field(default=8000, description="Its port; 0 picks a free one")
    console_url: str = Field(default="http://127.0.0.1:8005", description="Base of the Location of every flow")
    public_url: str = Field(
        default="http://127.0.0.1:8005", description="Base of the links in mails: your front end, or the console, which has a plain page for each"
    )
    user_url: str = Field(default="http://127.0.0.1:8401", description="Where people reach the user service: on the console's pages behind those links")
    org_url: str = Field(default="http://127.0.0.1:8402", description="Where people reach the org service, on the same pages")
    provisioning_url: str = Field(default="http://127.0.0.1:8405", description="Where people reach the provisioning service: in the mail that welcomes them")
    cors_origins: list[str] = Field(default=[], description="Origins that browsers may call from; none by default")
    operator_token_hash: str = Field(default="", description="SHA-256 of the operator token, hex; empty: no operator")
    signing_secret: SecretStr = Field(default=SecretStr(""), description="Signs list cursors and refresh tokens; the same for every replica")
    smtp_host: str = Field(default="127.0.0.1", description="Mail server")
    smtp_port: int = Field(default=25, description="Its port")
    smtp_username: str = Field(default="", description="Mail server's user; empty: none")
    smtp_password: SecretStr = Field(default=SecretStr(""), description="Its password")
    smtp_security: Literal["", "none", "starttls", "tls"] = Field(
        default="",
        description="`tls`: from the first byte, mostly port 465; `starttls`: before anything is sent; `none`. Empty: `starttls` with a user, else as offered",
    )
    mail_from: str = Field(default="SaaS Mesh <no-reply@mesh.localhost>", description="Sender of mails")
    stripe_api_key: SecretStr = Field(default=SecretStr(""), description="Secret key of the payment provider")
    stripe_api_base: str = Field(default="https://api.stripe.com", description="Its address")
    mesh_failpoint: str = Field(default="", description="For tests: <name>:<n> ends the process where that failpoint is passed for the n-th time")
    log_level: str = Field(default="INFO", description="Least severe level that is logged")
    access_token_seconds: int = Field(default=600, description="Life of an access token")
    refresh_token_days: int = Field(default=30, description="Life of a refresh token")
    sign_in_failures: int = Field(default=5, description="Failures for an address in 15 minutes before back-off")
    rate_limit_per_minute: int = Field(default=600, ge=1, description="Requests a minute that one address may make without an identity")
    rate_limit_caller_per_minute: int = Field(default=1200, ge=1, description="Requests a minute of one session or API key")
    rate_limit_account_per_minute: int = Field(default=3000, ge=1, description="Requests a minute of one person, all sessions and keys together")
    rate_limit_loopback_per_minute: int = Field(default=600_000, ge=1, description="Each of these limits for requests from this machine itself")


class TraceSettings(BaseSettings):
    """Whether there is a collector of traces: read by services and agents alike."""

    otel_exporter_otlp_endpoint: str = Field(default="", description="Base URL of an OTLP collector (HTTP); without it no span is made")
    otel_exporter_otlp_traces_endpoint: str = Field(default="", description="The whole URL instead, where traces have one of their own")


@cache
def settings() -> Settings:
    return Settings()
