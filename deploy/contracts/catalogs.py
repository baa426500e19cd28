"""Catalogs for readers: the metrics, and the settings."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from prometheus_client.metrics import MetricWrapperBase
from pydantic import SecretStr
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings

from deploy.contracts import ROOT
from services.agent.settings import Settings as AgentSettings
from shared.metrics import metrics
from shared.settings import Settings, TraceSettings

METRICS = ROOT / "docs" / "metrics.md"
CONFIGURATION = ROOT / "docs" / "configuration.md"
README = ROOT / "README.md"
FIRST = (
    "database_url", "kafka_bootstrap", "public_url", "cors_origins", "smtp_host", "smtp_port", "mail_from", "stripe_api_key", "stripe_api_base",
    "rate_limit_per_minute", "log_level",
)  # fmt: skip
"""The settings that the README shows: what a first user changes."""
OF_LIBRARIES = """\
Services and agents go by OpenTelemetry's standard variables, these and those its exporter reads beside them (`OTEL_EXPORTER_OTLP_HEADERS`,
`OTEL_RESOURCE_ATTRIBUTES`, …); `make up` hands on every `OTEL_…` it is started with. Services behind a proxy are told by uvicorn's
`FORWARDED_ALLOW_IPS` (default `127.0.0.1`) whose `X-Forwarded-For` to believe: rate limits count by that address."""
BEGIN, END = "<!-- settings: make docs -->", "<!-- end of settings -->"


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in lines)


def metrics_page() -> str:
    """docs/metrics.md."""
    found = sorted((m for m in vars(metrics).values() if isinstance(m, MetricWrapperBase)), key=lambda m: next(iter(m.describe())).name)
    rows = [_metric(m) for m in found]
    return (
        "# Metrics\n\nEvery service serves these at `/metrics` in the Prometheus text format. The name ends in the unit; labels never "
        "hold a tenant, a person or an id.\n\n"
        + _table(("name", "kind", "labels", "meaning"), rows)
        + "\nWritten from `shared/metrics.py` by `make docs`; a test compares the two.\n"
    )


def _metric(metric: MetricWrapperBase) -> tuple[str, str, str, str]:
    described = next(iter(metric.describe()))
    name = described.name + ("_total" if described.type == "counter" else "")
    labels = ", ".join(f"`{n}`" for n in metric._labelnames)  # noqa: SLF001 - the client has no public way to ask
    return f"`{name}`", described.type, labels or "none", described.documentation


def configuration_page() -> str:
    """docs/configuration.md: one table for the services, one for the agent, one for what libraries read under names of their own."""
    return (
        f"# Configuration\n\nEvery service reads its settings from the environment:\n\n{_settings(Settings)}"
        f"\nThe agent of a data plane reads:\n\n{_settings(AgentSettings)}"
        f"\n{OF_LIBRARIES}\n\n{_settings(TraceSettings)}"
        "\nWritten from `shared/settings.py` and `services/agent/settings.py` by `make docs`; a test compares them.\n"
    )


def _settings(kind: type[BaseSettings], names: Iterable[str] = ()) -> str:
    """Of all settings, unless some are named."""
    fields = {name: kind.model_fields[name] for name in names or kind.model_fields}
    rows = [(f"`{name.upper()}`", _default(field), " ".join((field.description or "").split())) for name, field in fields.items()]
    return _table(("variable", "default", "meaning"), rows)


def _default(field: FieldInfo) -> str:
    default: Any = field.default
    if field.is_required():
        return "required"
    if isinstance(default, SecretStr):
        return "empty"
    return f"`{default}`" if default not in ("", []) else "empty"


def readme(text: str) -> str:
    """The README with its table of settings as it should be."""
    before, _, rest = text.partition(BEGIN)
    after = rest.partition(END)[2]
    return f"{before}{BEGIN}\n{_settings(Settings, FIRST)}{END}{after}"


def files() -> dict[Path, str]:
    return {METRICS: metrics_page(), CONFIGURATION: configuration_page(), README: readme(README.read_text())}
