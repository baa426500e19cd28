"""Errors as RFC 9457 problems: what went wrong, why, and what to do next. Never a stack trace."""

import re
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, PlainTextResponse, Response
from starlette.exceptions import HTTPException
from starlette.routing import Match

from shared.errors import Refused
from shared.log import about, log
from shared.tx import DatabaseAway

_MESSAGES = {
    400: ("bad-request", "The body cannot be read. Send JSON in UTF-8, whose lists and objects are not nested hundreds of levels deep."),
    401: ("unauthenticated", "No valid identity came with the request. Sign in, or send an API key as Authorization: Bearer."),
    403: ("forbidden", "You are not allowed to do this. Ask somebody who may."),
    404: ("not-found", "There is nothing here that you may see. Check the address and the id; /docs lists the addresses."),
    405: ("method-not-allowed", "This address does not know this method. See /docs."),
    413: ("too-large", "The body is larger than 1 MB. Send less."),
    415: ("unsupported-media-type", "The body is of another type than this address reads. Send Content-Type: application/json."),
    422: ("invalid", "The request has the wrong form. See errors."),
    431: ("headers-too-large", "The headers are larger than 64 kB. Of Mesh-Position, send the newest token of each stream."),
    503: ("unavailable", "The service cannot do this right now and nothing was changed. Try again after the time in Retry-After."),
    500: ("internal", "Something went wrong on our side and nothing was changed. Try again; if it stays, report the request_id."),
}

_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")

_SENTENCE_ENDS = re.compile(r"(?<=[.?!]) (?=[A-Z])")


def problem(status: int, code: str, message: str, detail: str = "", headers: Mapping[str, str] | None = None, **extra: Any) -> JSONResponse:
    """A problem response. ``type`` is served by every service at ``/problems/<code>``; the message's first sentence is the title."""
    title = _SENTENCE_ENDS.split(message, maxsplit=1)[0]
    body = {"type": f"/problems/{code}", "title": title, "status": status, "detail": detail or message, "request_id": about.get().get("request_id", "")}
    authenticate = {"WWW-Authenticate": "Bearer"} if status == 401 else {}
    return JSONResponse(body | extra, status, authenticate | dict(headers or {}), media_type="application/problem+json")


def standard(status: int, detail: str = "", headers: Mapping[str, str] | None = None, **extra: Any) -> JSONResponse:
    code, message = _MESSAGES.get(status, ("error", "The request was refused."))
    return problem(status, code, message, detail, headers, **extra)


def _pointer(location: Sequence[Any]) -> str:
    """The JSON pointer (RFC 6901) of a place inside the body, the path, the query or the headers; the empty one is the whole."""
    return "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in location)


async def _refused(_: Request, error: Exception) -> Response:
    assert isinstance(error, Refused)  # noqa: S101 - FastAPI calls it for this kind only
    headers = {"Retry-After": str(error.retry_after)} if error.retry_after else {}
    return problem(error.status, error.code(), error.message(), _why_and_what_next(error), headers)


def _why_and_what_next(error: Refused) -> str:
    """The title says what is wrong. Where nothing is said of this one time, the whole message."""
    _, *what_next = _SENTENCE_ENDS.split(error.message(), maxsplit=1)
    return " ".join([error.detail, *what_next]) if error.detail else error.message()


async def _invalid(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)  # noqa: S101 - FastAPI calls it for this kind only
    said = dict.fromkeys(_where_and_what(e) for e in error.errors())  # a door may ask for the same twice
    errors = [{"in": place, "pointer": where, "detail": what} for place, where, what in said]
    return standard(422, " ".join(f"{where or f'The {place}'}: {what}." for place, where, what in said), errors=errors)


_IN_OUR_WORDS = {
    "extra_forbidden": "there is no such field",
    "missing": "it is missing",
    "model_attributes_type": "it must be a JSON object",
    "uuid_parsing": "it is no UUID",
}


def _where_and_what(error: dict[str, Any]) -> tuple[str, str, str]:
    place, *location = error["loc"]
    unread = error["type"] == "json_invalid"
    what = f"it is no JSON: {error['ctx']['error']}" if unread else _IN_OUR_WORDS.get(error["type"], error["msg"]).removeprefix("Value error, ").rstrip(".")
    return str(place), "" if unread else _pointer(location), what


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101 - FastAPI calls it for this kind only
    headers = {"Allow": ", ".join(_answered(request))} if error.status_code == 405 else error.headers
    return standard(error.status_code, headers=headers)


def _answered(request: Request) -> list[str]:
    """The methods that the doors at this address answer. A route knows its own alone."""
    return [m for m in _METHODS if any(route.matches({**request.scope, "method": m})[0] is Match.FULL for route in request.app.routes)]


async def _unavailable(_: Request, error: Exception) -> Response:
    log.warning("a request met a database that is away or busy", extra={"error": repr(error)})
    return standard(503, headers={"Retry-After": "1"})


_ANSWERED = (Refused, RequestValidationError, HTTPException, DatabaseAway)


def is_surprise(error: BaseException) -> bool:
    """Whether nobody has said what this error means to a caller."""
    return isinstance(error, Exception) and not isinstance(error, _ANSWERED)


def failed(error: BaseException) -> Response:
    """The answer to a request that met a mistake of ours, which is logged here."""
    log.error("a request failed", exc_info=error)
    return standard(500)


def install(app: FastAPI) -> None:
    """Registers the handlers, and the pages that explain each problem."""
    app.add_exception_handler(Refused, _refused)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(DatabaseAway, _unavailable)

    @app.get("/problems/{code}", include_in_schema=False)
    async def explain(code: str) -> PlainTextResponse:
        texts = dict(_MESSAGES.values()) | {r.code(): r.message() for r in _all_refusals(Refused)}
        if code not in texts:
            raise HTTPException(404)
        return PlainTextResponse(f"{code}\n\n{texts[code]}\n")


def _all_refusals(kind: type[Refused]) -> list[type[Refused]]:
    return [kind, *(r for sub in kind.__subclasses__() for r in _all_refusals(sub))]


def new_request_id() -> str:
    return uuid.uuid4().hex
