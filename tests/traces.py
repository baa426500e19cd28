"""A small OTLP receiver: the spans that the mesh really exported."""

import threading
from collections import defaultdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest


class Traces:
    """Spans by trace id: for each the service that made it and its name."""

    def __init__(self, port: int = 0, host: str = "127.0.0.1") -> None:
        self.spans: dict[str, list[tuple[str, str]]] = defaultdict(list)
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                receiver.take(self.rfile.read(int(self.headers["Content-Length"])))
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Quiet."""

        self.server = ThreadingHTTPServer((host, port), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @classmethod
    def for_mesh(cls, folder: Path) -> "Traces":
        """At the port that the mesh of this folder was told when it started first."""
        known = folder / "otlp-port"
        traces = cls(int(known.read_text()) if known.exists() else 0)
        folder.mkdir(parents=True, exist_ok=True)
        known.write_text(str(traces.server.server_port))
        return traces

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}"

    def take(self, body: bytes) -> None:
        request = ExportTraceServiceRequest.FromString(body)
        for resource in request.resource_spans:
            service = next((a.value.string_value for a in resource.resource.attributes if a.key == "service.name"), "?")
            for scope in resource.scope_spans:
                for span in scope.spans:
                    self.spans[span.trace_id.hex()].append((service.removeprefix("mesh-"), span.name))

    def services(self, trace_id: str) -> set[str]:
        return {service for service, _ in self.spans.get(trace_id, [])}
