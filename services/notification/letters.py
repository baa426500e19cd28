"""What a message says: its subject, text and HTML from the templates, the one place where something is rendered."""

from collections.abc import Mapping
from dataclasses import dataclass
from email.message import EmailMessage
from email.utils import formatdate
from functools import cache
from pathlib import Path
from typing import Any
from uuid import UUID

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape

from schemas.notification import Template
from shared.settings import settings


@dataclass(frozen=True)
class Letter:
    """A rendered message."""

    subject: str
    text: str
    html: str


@cache
def _templates() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=select_autoescape(["html"]),
        undefined=StrictUndefined,
        finalize=_on_one_line,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals["provisioning_url"] = settings().provisioning_url
    return environment


def _on_one_line(value: Any) -> Any:
    """A name that somebody typed cannot add a line to a mail, nor a header."""
    return " ".join(value.split()) if type(value) is str else value


def subject(template: Template, variables: Mapping[str, Any]) -> str:
    return _render([f"{template}.subject"], variables)


def render(template: Template, variables: Mapping[str, Any]) -> Letter:
    """A template without HTML of its own is mailed as the paragraphs of its text. Raises jinja2's error for a variable that is missing."""
    text = _render([f"{template}.txt"], variables)
    html = _render([f"{template}.html", "plain.html"], {**variables, "paragraphs": text.split("\n\n")})
    return Letter(subject(template, variables), f"{_render(['greeting.txt'], variables)}\n\n{text}", html)


def _render(files: list[str], variables: Mapping[str, Any]) -> str:
    """The first of the files that is there."""
    return _templates().select_template(files).render(variables).strip()


def mail(letter: Letter, id: UUID, to: str) -> EmailMessage:
    """A letter as a mail. Its Message-ID is the message's id: a repeat after a crash is recognized by it."""
    message = EmailMessage()
    message["From"] = settings().mail_from
    message["To"] = to
    message["Subject"] = letter.subject
    message["Date"] = formatdate(usegmt=True)
    message["Message-ID"] = f"<{id}@mesh>"
    message["Auto-Submitted"] = "auto-generated"
    message.set_content(letter.text + "\n")
    message.add_alternative(letter.html, subtype="html")
    return message
