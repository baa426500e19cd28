"""The HTTP application of a service: one middleware stack with a reason for its order, health, metrics and bundled docs."""

import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import prometheus_client
import swagger_ui_bundle
from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.middleware.cors import CORSMiddleware
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import HTMLResponse, JSONResponse, PlainTextResponse, RedirectResponse
from fastapi.staticfiles import StaticFiles
from fastapi.telemetry import TelemetryConfig
from starlette.middleware.body_limit import RequestBodyLimitMiddleware

from shared.http import operations, problems
from shared.log import about
from shared.metrics import metrics
from shared.settings import settings

MAX_BODY = 1_000_000
MAX_HEADERS = 64_000
_QUIET = ("/healthz", "/readyz", "/metrics")
"""Asked all the time by machines."""
_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Strict-Transport-Security": "max-age=31536000",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
}
_DOCS_POLICY = "default-src 'self'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; frame-ancestors 'none'"


def create_app(service: str, router: APIRouter, lifespan: Any = None) -> FastAPI:
    """The service's REST API with everything the contract promises of each. ``/readyz`` asks ``app.state.ready``."""
    app = FastAPI(
        title=f"SaaS Mesh: {service}",
        version="1",
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
        strict_content_type=True,
        telemetry=TelemetryConfig(operation_spans=False, metrics=False, logs=False, exclude=_is_untold),
    )
    problems.install(app)
    app.include_router(router)
    app.include_router(operations.router)
    _add_operations(app, service)
    _add_docs(app, service)
    if settings().cors_origins:
        app.add_middleware(CORSMiddleware, allow_origins=settings().cors_origins, allow_methods=["*"], allow_headers=["*"], expose_headers=["*"])
    app.add_middleware(RequestBodyLimitMiddleware, max_body_size=MAX_BODY)
    app.middleware("http")(_observe)
    return app


def _is_untold(scope: Any) -> bool:
    """Whether there is no span of a request: a machine asks all the time, or its address holds a token, which a span would show."""
    return scope["path"] in _QUIET or b"token=" in scope.get("query_string", b"")


async def _observe(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
    """Outermost: names the request, refuses what no door reads, times it, and closes the answer with the security headers."""
    request_id = request.headers.get("X-Request-Id", "")[:64] or problems.new_request_id()
    token = about.set({"request_id": request_id})
    started = time.perf_counter()
    try:
        response = _refused_unread(request) or await call_next(request)
        route = getattr(request.scope.get("route"), "path", "none")
        metrics.requests.labels(request.method, route, str(response.status_code)).observe(time.perf_counter() - started)
    finally:
        about.reset(token)
    response.headers["X-Request-Id"] = request_id
    for name, value in _HEADERS.items():
        response.headers.setdefault(name, value)
    return response


def _refused_unread(request: Request) -> Response | None:
    """The answer to headers and a body that no door reads. A body that does not tell its length is counted while it is read."""
    if sum(len(name) + len(value) for name, value in request.headers.raw) > MAX_HEADERS:
        return problems.standard(431)
    length = request.headers.get("content-length", "0")
    if length.isdigit() and int(length) > MAX_BODY:
        return problems.standard(413)
    has_body = length != "0" or "transfer-encoding" in request.headers
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if has_body and request.method in ("POST", "PATCH", "PUT", "DELETE") and kind != "application/json":
        return problems.standard(415)
    if "\0" in request.url.path or b"%00" in request.scope["query_string"]:
        return problems.standard(422, "An address must not hold the character U+0000.")
    return None


def _add_operations(app: FastAPI, service: str) -> None:
    @app.get("/healthz", tags=["operations"])
    async def alive() -> dict[str, str]:
        """Alive: the process answers."""
        return {"service": service, "state": "alive"}

    @app.get("/readyz", tags=["operations"], responses={503: {"description": "Not ready; `reason` says why"}})
    async def ready(request: Request) -> JSONResponse:
        """Ready: the database answers and changes are being read."""
        reason = await request.app.state.ready()
        return JSONResponse({"service": service, "ready": reason is None, "reason": reason}, 503 if reason else 200)

    @app.get("/metrics", tags=["operations"], response_class=PlainTextResponse)
    async def prometheus() -> Response:
        """Metrics in the Prometheus text format."""
        return Response(prometheus_client.generate_latest(), media_type=prometheus_client.CONTENT_TYPE_LATEST)


def _add_docs(app: FastAPI, service: str) -> None:
    app.mount("/docs/assets", StaticFiles(directory=Path(swagger_ui_bundle.swagger_ui_path)), name="docs-assets")

    @app.get("/", include_in_schema=False)
    async def where_to_look() -> RedirectResponse:
        return RedirectResponse("/docs")

    @app.get("/docs", include_in_schema=False)
    async def docs() -> HTMLResponse:
        page = get_swagger_ui_html(
            openapi_url="/openapi.json", title=f"SaaS Mesh: {service}", swagger_js_url="/docs/assets/swagger-ui-bundle.js",
            swagger_css_url="/docs/assets/swagger-ui.css", swagger_favicon_url="/docs/assets/favicon-32x32.png",
        )  # fmt: skip
        page.headers["Content-Security-Policy"] = _DOCS_POLICY
        return page
