"""A template, a locale and data become a subject, HTML and text: the same bytes every time.

A retry under one idempotency key must not differ from the first attempt, so nothing here depends on
the time, the environment or chance. The words of a mail are written once, in `templates/<locale>/`,
and laid out twice: `templates/html/` and `templates/text/` have components of the same names.
"""

import functools
import re
import textwrap
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from pydantic import ValidationError

from kyora import config, money
from kyora.config import Email
from kyora.email.mails.catalogue import LOCALES, MAILS, locale_of
from kyora.email.mails.mail import Data
from kyora.email.text import LinkPolicy, SafeUrl, UserText, clean, isolate, shorten
from kyora.errors import Invalid, field_errors

TEMPLATE_FOLDER = Path(__file__).parent / "templates"
DIRECTIONS = {"en": "ltr", "ar": "rtl"}

_SUBJECT_LENGTH = 78  # what clients show of a subject, and a header's line before it is folded
_LONGEST_LINE = 900  # bytes; SMTP allows 998 (RFC 5322, 2.1.1), and not every relay encodes
_SHOWN_LINK = 44  # characters
_BETWEEN_ATTRIBUTES = re.compile(r' (?=[\w-]+=")')


class Rendered(NamedTuple):
    """A mail as it is given to a provider."""

    subject: str
    html: str
    text: str
    preheader: str


class NotRenderable(Invalid):
    """The data does not fit the template, so another attempt would fail as well."""

    code, title = "email.not_renderable", "The e-mail cannot be written"


def render(
    template_id: str,
    locale: str | None,
    data: Mapping[str, Any] | Data,
    *,
    message_id: str | None = None,
    settings: Email | None = None,
) -> Rendered:
    """Write a mail. `data` is the mail's model, or has its fields in camelCase.

    Raises NotRenderable, whose text names fields and never repeats their values.
    """
    settings = settings or config.email()
    mail = MAILS.get(template_id)
    if mail is None:
        raise NotRenderable("There is no such template.")
    links = LinkPolicy(settings.app_base_url, config.is_development())
    given = data.model_dump() if isinstance(data, Data) else dict(data)
    try:
        checked = mail.data.model_validate(given, context={"links": links})
    except ValidationError as error:
        raise NotRenderable(
            f"The data does not fit {template_id}.", errors=field_errors(error.errors())
        ) from None
    values = {name: getattr(checked, name) for name in type(checked).model_fields}
    values |= {
        "app_url": links.to("/"),
        "billing_url": links.to("/billing"),
        "support_email": settings.support_email,
        "lifetime": int(mail.lifetime.total_seconds()),
        "reference": clean(message_id or ""),
    }
    return _write(template_id, locale_of(locale), values)


def _write(template_id: str, locale: str, values: dict[str, Any]) -> Rendered:
    text, html = environment("text", locale), environment("html", locale)
    plain = _for_text(values, locale)
    header = {
        "subject": _subject(text, template_id, values, locale),
        "preheader": _block(text, template_id, "preheader", plain),
    }
    name = f"{template_id}.j2"
    return Rendered(
        subject=header["subject"],
        html=_fold(html.get_template(name).render(values | header)),
        text=_tidy(text.get_template(name).render(plain | header)),
        preheader=header["preheader"],
    )


def _subject(text: Environment, template_id: str, values: dict[str, Any], locale: str) -> str:
    """Return the subject with its names shortened until it fits, and with at most one `!`."""
    direction = DIRECTIONS[locale]
    names = {name: str(value) for name, value in values.items() if isinstance(value, UserText)}
    if _block(text, template_id, "subject", values).count("!") > 1:
        names = {name: value.replace("!", "") for name, value in names.items()}
    found = ""
    for limit in (80, 60, 48, 36, 28, 24, 20):
        short = {n: isolate(shorten(value, limit), direction) for n, value in names.items()}
        found = _block(text, template_id, "subject", values | short)
        if len(found) <= _SUBJECT_LENGTH:
            break
    return found


def _for_text(values: dict[str, Any], locale: str) -> dict[str, Any]:
    direction = DIRECTIONS[locale]
    return {n: v.plain(direction) if isinstance(v, UserText) else v for n, v in values.items()}


def _block(text: Environment, template_id: str, name: str, values: dict[str, Any]) -> str:
    template = text.get_template(f"{template_id}.j2")
    return " ".join("".join(template.blocks[name](template.new_context(values))).split())


def _tidy(text: str) -> str:
    """Close a bidi isolate at the end of each line and reopen it on the next; tidy blank lines."""
    lines, inside = [], False
    for raw in text.splitlines():
        # Clients recognise a signature by two dashes and a blank.
        line = ("\u2068" if inside else "") + (raw if raw == "-- " else raw.rstrip())
        inside = line.rfind("\u2068") > line.rfind("\u2069")
        lines.append(line + ("\u2069" if inside else ""))
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip() + "\n"


def _fold(page: str) -> str:
    """Break lines of HTML that are too long, between two attributes where possible."""
    lines = []
    for line in page.splitlines():
        rest = line
        while len(rest.encode()) > _LONGEST_LINE:
            head = rest.encode()[:_LONGEST_LINE].decode(errors="ignore")
            blanks = [found.start() for found in _BETWEEN_ATTRIBUTES.finditer(head)]
            at = blanks[-1] if blanks else head.rfind(" ")
            if at < 1:
                break  # a link, which cannot be broken
            lines.append(rest[:at])
            rest = rest[at + 1 :]
        lines.append(rest)
    return "\n".join(lines)


@functools.cache
def environment(kind: str, locale: str) -> Environment:
    """Return the Jinja environment of `html` or `text` in a locale."""
    if kind not in {"html", "text"} or locale not in LOCALES:
        raise ValueError("no such environment")
    made = Environment(
        loader=FileSystemLoader([TEMPLATE_FOLDER / kind, TEMPLATE_FOLDER / locale]),
        # By kind, not by file name: Jinja's select_autoescape leaves *.html.j2 unescaped.
        autoescape=kind == "html",  # noqa: S701  # plain text has nothing to escape
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    direction = DIRECTIONS[locale]
    start, end = ("left", "right") if direction == "ltr" else ("right", "left")
    made.globals |= {"lang": locale, "dir": direction, "start": start, "end": end}
    filters: dict[str, Callable[..., Any]] = {
        "heading": _heading,
        "href": _href,
        "shown_link": _shown_link,
        "money": _money,
        "wrap": _wrap,
        "indent_rest": _indent_rest,
    }
    made.filters |= filters
    made.globals["words"] = made.get_template("words.j2").module
    made.globals["brand"] = getattr(made.get_template("components.j2").module, "brand")  # noqa: B009
    return made


def _href(value: object) -> SafeUrl:
    """Accept only a link that a LinkPolicy has checked."""
    if not isinstance(value, SafeUrl):
        raise TypeError("a link has to be a SafeUrl")
    return value


def _shown_link(value: object) -> str:
    """Return the start of a link, which shows where it leads, without its query: that is secret."""
    link, query, _ = _href(value).partition("?")
    return link[:_SHOWN_LINK] + ("…" if query or len(link) > _SHOWN_LINK else "")


def _money(amount: int, currency: str) -> str:
    digits = money.decimals_at_stripe(currency)
    whole, rest = divmod(amount, 10**digits)
    return f"{whole:,}" + (f".{rest:0{digits}d}" if digits else "") + f" {currency}"


def _wrap(value: str, width: int = 72) -> str:
    """Fill lines of plain text, without breaking a link."""
    return textwrap.fill(
        " ".join(value.split()), width, break_long_words=False, break_on_hyphens=False
    )


def _heading(value: str) -> str:
    """Wrap and underline."""
    filled = _wrap(value)
    return f"{filled}\n{'=' * max(len(line) for line in filled.splitlines())}"


def _indent_rest(value: str, by: int) -> str:
    return value.replace("\n", "\n" + " " * by)
