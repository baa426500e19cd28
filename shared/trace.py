"""Traces: one trace from the request through every hop to the data plane, carried by ``traceparent`` in change records.

Exporting is switched on by :class:`shared.settings.TraceSettings`, OpenTelemetry's standard variables; without them the ``traceparent``
still travels and no span is made. How it is exported (headers, resource attributes, …) its exporter reads from their like.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager

from opentelemetry import propagate, trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

from shared.settings import TraceSettings

_exporting = False
_TRACEPARENT = re.compile("00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")


def set_up_traces(service: str) -> bool:
    """Starts exporting when the environment says where to. Answers whether spans are made."""
    global _exporting  # noqa: PLW0603 - one process, one tracer
    told = TraceSettings()
    if not (told.otel_exporter_otlp_endpoint or told.otel_exporter_otlp_traces_endpoint):
        return False
    provider = TracerProvider(resource=Resource.create({"service.name": f"mesh-{service}"}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(), schedule_delay_millis=500))
    trace.set_tracer_provider(provider)
    _exporting = True
    return True


@contextmanager
def span(name: str, parent: str | None) -> Iterator[str | None]:
    """A span below the given ``traceparent``; yields the ``traceparent`` for what it causes."""
    if not _exporting:
        yield parent
        return
    context = propagate.extract({"traceparent": parent}) if parent else None
    with trace.get_tracer("mesh").start_as_current_span(name, context=context):
        yield current_traceparent()


def well_formed(traceparent: str | None) -> str | None:
    """What a stranger sent, if it is a ``traceparent`` (W3C Trace Context, version 00)."""
    return traceparent if traceparent and _TRACEPARENT.fullmatch(traceparent) else None


def trace_id(traceparent: str | None) -> str | None:
    """The trace that a ``traceparent`` belongs to."""
    return traceparent.split("-")[1] if traceparent and traceparent.count("-") == 3 else None


def current_traceparent() -> str | None:
    """The ``traceparent`` of the span that is open, in the W3C form."""
    carrier: dict[str, str] = {}
    propagate.inject(carrier)
    return carrier.get("traceparent")
