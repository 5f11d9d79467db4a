"""Every mail, in both languages, with the least, the usual, too much and an attack."""

import ast
import functools
import html
import os
import re
import unicodedata
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from jinja2 import meta, nodes

from kyora.email.mails.catalogue import LOCALES, MAILS
from kyora.email.mails.mail import STRIPE_HOSTS
from kyora.email.render import (
    DIRECTIONS,
    TEMPLATE_FOLDER,
    NotRenderable,
    Rendered,
    environment,
    render,
)
from kyora.email.text import clean
from local.tools.email_samples import (
    HOSTILE,
    MESSAGE_ID,
    SAMPLES,
    SETTINGS,
    hostile_variants,
    sample,
)
from tests.unit.email_page import Node, Page, contrast, dark, declarations, rules, seen

SNAPSHOTS = Path(__file__).parent / "snapshots" / "emails"
# Joiners are letters in some scripts; where they may stand is tested with the text they stand in.
CONTROLS = re.compile(
    "[\x00-\x1f\x7f-\x9f\u200b\u200e\u200f\u061c\u2028-\u202e\u2060-\u2069\ufeff]"
)
ISOLATED = re.compile("\u2068([^\u2068\u2069]+)\u2069")  # balanced, and not empty

# Each template's variables and English subject, as documented.
DOCUMENTED = {
    "email_verification": ({"name", "verificationLink"}, "Verify your email"),
    "forgot_password": ({"name", "resetLink"}, "Reset your password"),
    "welcome": ({"name", "workspaceName"}, "Welcome to Kyora"),
    "workspace_invitation": (
        {"inviterName", "workspaceName", "invitationLink"},
        "{inviterName} invited you to {workspaceName}",
    ),
    "subscription_confirmed": ({"name", "planName"}, "You're on {planName}"),
    "subscription_cancelled": ({"name", "planName"}, "Your {planName} subscription has ended"),
    "payment_failed": ({"name", "retryLink"}, "We couldn't take your payment"),
    "trial_ending": ({"name", "planName", "trialEnd"}, "Your trial ends soon"),
    "payment_recovered": ({"name", "planName"}, "Your payment went through"),
    "grace_ending": (
        {"name", "planName", "accessUntil", "retryLink"},
        "Last day to keep {planName}",
    ),
    "payment_method_expiring": (
        {"name", "planName", "expiry", "chargeAt"},
        "Your card expires before the next charge",
    ),
    "renewal_upcoming": (
        {"name", "planName", "renewsAt"},
        "Your {planName} subscription renews soon",
    ),
    "subscription_paused": ({"name", "planName"}, "Your {planName} subscription is paused"),
    "subscription_resumed": ({"name", "planName"}, "Your {planName} subscription has resumed"),
    "asset_quarantined": ({"name", "filename"}, "We found malware in one of your files"),
}
# What templates are given beside their data.
COMMON = {
    "app_url", "billing_url", "lifetime", "preheader", "reference", "subject", "support_email"
}  # fmt: skip


class Mail:
    """A rendered sample."""

    def __init__(self, template: str, locale: str, data: dict[str, Any], kind: str) -> None:
        self.template, self.locale, self.data, self.kind = template, locale, data, kind
        self.dir = DIRECTIONS[locale]
        self.made: Rendered = render(
            template, locale, data, message_id=MESSAGE_ID, settings=SETTINGS
        )
        self.page = Page(self.made.html)

    @property
    def links(self) -> list[Node]:
        return self.page.all("a")

    @property
    def button(self) -> Node:
        (found,) = [link for link in self.links if "button" in link.classes]
        return found


@functools.cache
def written(template: str, locale: str, kind: str) -> Mail:
    return Mail(template, locale, sample(template, locale, kind), kind)


CASES = [(t, locale, kind) for t in MAILS for locale in LOCALES for kind in SAMPLES]


@pytest.fixture(params=CASES, ids="-".join)
def mail(request: pytest.FixtureRequest) -> Mail:
    return written(*request.param)


@pytest.fixture(params=[c for c in CASES if c[2] != "hostile"], ids="-".join)
def honest(request: pytest.FixtureRequest) -> Mail:
    """A mail without an attack: what stands in it is ours."""
    return written(*request.param)


def test_the_html_is_small(mail: Mail) -> None:
    assert len(mail.made.html.encode()) < 40_000  # Gmail cuts at 102 KB
    assert len(mail.page.css) < 16_000


def test_the_text_says_everything_the_html_does(mail: Mail) -> None:
    text = mail.made.text
    for link in mail.links:
        assert link.attrs["href"].removeprefix("mailto:") in text
    assert all(len(line.encode()) <= 998 for line in text.splitlines())
    # Every sentence of the HTML is there, apart from the logo and what repeats the link.
    flat = " ".join(re.sub("[\u2068\u2069]", "", text).split())
    for part in mail.page.all("p", "h1", "th"):
        said = " ".join(part.text.split())
        if not said.startswith(("http", "Or open", "أو بفتح", "Kyora ·")):
            assert said in flat, said


def test_the_text_has_no_markup(honest: Mail) -> None:
    assert not re.search(r"<\w|</|&(\w+|#\d+);", honest.made.text)


def test_language_and_direction_stand_where_clients_look(mail: Mail) -> None:
    assert mail.made.html.startswith("<!doctype html>")
    body = mail.page.one("body")
    children = [child for child in body.children if isinstance(child, Node)]
    for node in [mail.page.one("html"), *children]:
        assert (node.attrs["lang"], node.attrs["dir"]) == (mail.locale, mail.dir)


def test_nothing_is_aligned_against_the_direction(mail: Mail) -> None:
    start = "left" if mail.dir == "ltr" else "right"
    for node in mail.page.all():
        for value in (node.attrs.get("align"), node.style.get("text-align")):
            assert value in {None, "center", start}, node
        if node.tag == "table":
            assert node.attrs["dir"] == mail.dir
        for name in node.style:
            if name.endswith(("-left", "-right")):
                assert name.endswith(f"-{start}"), name


def test_the_title_is_the_subject(mail: Mail) -> None:
    assert mail.page.one("title").text == mail.made.subject != ""


def test_there_is_one_heading(mail: Mail) -> None:
    assert [node.tag for node in mail.page.all() if re.fullmatch("h[1-6]", node.tag)] == ["h1"]


def test_tables_say_what_they_are(mail: Mail) -> None:
    for table in mail.page.all("table"):
        rows = [row for row in table.children if isinstance(row, Node)]
        cells = [cell for row in rows for cell in row.children if isinstance(cell, Node)]
        heads = [cell for cell in cells if cell.tag == "th"]
        assert (table.attrs.get("role") == "presentation") != bool(heads)
        assert all(th.attrs["scope"] == "row" for th in heads)


def test_there_are_no_pictures(mail: Mail) -> None:
    assert not mail.page.all("img", "picture", "svg", "video", "audio")
    assert not re.search(r"url\(|data:|cid:|background=", mail.made.html)


def test_links_lead_where_they_may_and_say_where(mail: Mail) -> None:
    owed = mail.template in ("payment_failed", "grace_ending")
    hosts = {"app.kyora.example"} | (STRIPE_HOSTS if owed else set())
    for link in mail.links:
        url = urlsplit(link.attrs["href"])
        if url.scheme == "mailto":
            assert link.attrs["href"] == f"mailto:{SETTINGS.support_email}"
            continue
        assert (url.scheme, url.hostname in hosts) == ("https", True)
        if link is mail.button:
            assert len(link.text) > 4
            assert link.text.lower() not in {"click here", "here", "اضغط هنا", "هنا"}
            assert "http" not in link.text
        else:  # the labelled fallback: as much as says where it leads
            shown = link.text.removesuffix("…")
            assert link.attrs["href"].startswith(shown)
            assert urlsplit(shown).netloc == url.netloc
            assert (shown == link.attrs["href"]) == (not link.text.endswith("…"))


def test_the_button_can_be_hit_and_its_link_can_be_read(mail: Mail) -> None:
    style = mail.button.style
    top = float(style["padding"].split()[0].removesuffix("px"))
    assert 2 * top + float(style["line-height"].removesuffix("px")) >= 44
    url = mail.button.attrs["href"]
    assert [a.attrs["href"] for a in mail.links].count(url) == 2
    assert url in mail.made.text.splitlines()


def test_what_a_link_opens_is_not_written_out(mail: Mail) -> None:
    """A reader reads where a link leads; an onlooker reads no token."""
    for link in mail.links:
        assert len(link.text) <= 50
        assert "?" not in link.text


def test_no_line_is_longer_than_smtp_takes(mail: Mail) -> None:
    for line in (mail.made.html + mail.made.text).splitlines():
        assert len(line.encode()) <= 998


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_can_be_read(mail: Mail, scheme: str) -> None:
    found = seen(mail.page, dark(mail.page) if scheme == "dark" else {})
    assert len(found) > 10
    for part in found:
        large = part.size >= 24 or (part.bold and part.size >= 18.66)
        ratio = contrast(part.color, part.background)
        assert ratio >= (3 if large else 4.5), (part, ratio)


def test_no_colour_forgets_the_dark(mail: Mail) -> None:
    for node in mail.page.all():
        changed: set[str] = set()
        for name in node.classes:
            changed |= set(dark(mail.page).get(name, {}))
        if "preheader" not in node.classes:
            assert {"color", "background-color"} & set(node.style) <= changed, node.attrs


def test_text_is_large_enough(mail: Mail) -> None:
    footer = mail.page.all("td")[-1]
    small = {part.text for part in seen(_page_of(footer), {})}
    for part in seen(mail.page, {}):
        assert part.size >= (12 if part.text in small else 14), part


def _page_of(node: Node) -> Page:
    page = Page("")
    page.root.children = [Node("body", {}, None, [node])]
    return page


def test_the_column_is_600_pixels_and_shrinks(mail: Mail) -> None:
    (container,) = [t for t in mail.page.all("table") if "container" in t.classes]
    assert (container.style["max-width"], container.style["width"]) == ("600px", "100%")
    for node in mail.page.all():
        assert int(re.sub(r"\D", "", node.attrs.get("width", "0"))) <= 100
    assert any('width="600"' in comment for comment in mail.page.comments)  # Outlook


def test_nothing_active_and_nothing_from_outside(mail: Mail) -> None:
    allowed = {
        "html", "head", "meta", "title", "style", "body", "div", "table", "tr", "td", "th", "p",
        "h1", "a", "strong", "span", "bdi", "br",
    }  # fmt: skip
    for node in mail.page.all():
        assert node.tag in allowed
        assert not [name for name in node.attrs if name.startswith("on")]
        assert not {"position", "float", "background-image"} & set(node.style)
        assert node.style.get("display") not in {"flex", "grid"}
    assert "@import" not in mail.page.css
    assert "@font-face" not in mail.page.css


def test_the_style_sheet_uses_what_clients_know(mail: Mail) -> None:
    selector = re.compile(r"(:root|(\[data-ogsc\] )?\.[a-z-]+)")
    classes = {name for node in mail.page.all() for name in node.classes}
    found = rules(re.sub(r"@media [^{]+\{", "", mail.page.css))
    for name, body in found:
        assert selector.fullmatch(name), name
        assert all(v.endswith("!important") for v in body.values()) or name == ":root"
    # A class that no rule knows is a slip; `container` and `preheader` are names for tests.
    known = {name.rpartition(".")[2] for name, _ in found} | {"container", "preheader"}
    assert classes <= known
    usual = {
        "align", "background-color", "border", "border-collapse", "border-left", "border-radius",
        "border-right", "border-top", "color", "display", "font-family", "font-size",
        "font-weight", "height", "letter-spacing", "line-height", "margin", "max-height",
        "max-width", "min-height", "mso-hide", "mso-padding-alt", "opacity", "overflow",
        "overflow-wrap", "padding", "padding-left", "padding-right", "text-align",
        "text-decoration", "white-space", "width", "word-break",
    }  # fmt: skip
    for node in mail.page.all():
        assert set(node.style) <= usual, node.style


def test_mail_clients_get_the_headers_they_need(mail: Mail) -> None:
    metas = {m.attrs.get("name", "charset"): m.attrs for m in mail.page.all("meta")}
    assert metas["charset"]["charset"] == "utf-8"
    assert "width=device-width" in metas["viewport"]["content"]
    assert metas["color-scheme"]["content"] == "light dark"
    assert metas["supported-color-schemes"]["content"] == "light dark"
    first, second = mail.page.all("style")  # Gmail drops one that it does not wholly know
    assert "@media" in first.text
    assert not re.search(r"\[|:root", first.text)
    assert "@media" not in second.text
    outlook = [(s, b) for s, b in rules(mail.page.css) if s.startswith("[data-ogsc]")]
    assert {s.removeprefix("[data-ogsc] .") for s, _ in outlook} == set(dark(mail.page))


def test_the_preheader_fills_the_preview(mail: Mail) -> None:
    assert 40 <= len(mail.made.preheader) <= 90
    hidden = mail.page.one("body").children[1]
    assert isinstance(hidden, Node)
    assert (hidden.style["display"], hidden.style["mso-hide"]) == ("none", "all")
    assert hidden.text.startswith(mail.made.preheader)
    filler = hidden.text.removeprefix(mail.made.preheader).replace("\n", "")
    assert len(filler) > 90
    assert set(filler) == {"\u034f", "\u200c", "\u00a0"}


def test_the_subject_is_a_header(mail: Mail) -> None:
    subject = mail.made.subject
    # The shortest subject has 11 characters ("You're on S").
    assert 11 <= len(subject) <= 78
    assert not CONTROLS.search(ISOLATED.sub(r"\1", subject))
    assert subject == subject.strip()
    assert mail.locale == "ar" or re.search("[a-z]{2}", subject)  # it does not shout
    assert subject.count("!") <= 1


def test_nothing_of_the_machine_shows(honest: Mail) -> None:
    for part in honest.made:
        assert not re.search(r"\{\{|\}\}|\{%|\bNone\b|undefined|\[\]|<bdi></bdi>|Markup", part)


def test_an_attack_changes_words_and_no_structure(mail: Mail) -> None:
    usual = written(mail.template, mail.locale, "typical")
    if mail.kind != "minimal":  # which has fewer things to say
        assert _skeleton(mail.page) == _skeleton(usual.page)


def _skeleton(page: Page) -> list[tuple[str, dict[str, str]]]:
    """Return the elements without what holds or carries words."""
    changing = {"href", "aria-label"}
    return [
        (node.tag, {n: v for n, v in node.attrs.items() if n not in changing})
        for node in page.all()
        if not (node.tag in {"bdi", "span"} and not node.attrs)
    ]


ATTACKS = [
    (template, locale, number)
    for template in MAILS
    for locale in LOCALES
    for number in range(len(hostile_variants(template)))
]


@pytest.mark.parametrize(("template", "locale", "number"), ATTACKS)
def test_each_attack_in_each_field_is_only_words(template: str, locale: str, number: int) -> None:
    data = hostile_variants(template)[number]
    attack = next(value for value in data.values() if value in HOSTILE)
    mail = Mail(template, locale, data, "hostile")
    usual = written(template, locale, "typical")
    assert _skeleton(mail.page) == _skeleton(usual.page)

    shown = clean(attack)
    assert not CONTROLS.search(shown)
    if shown:
        assert shown in [node.text for node in mail.page.all("bdi")]
    # Isolates are ours: balanced on their line, and only around a person's words and our name.
    for line in [mail.made.subject, *mail.made.text.split("\n")]:
        assert not CONTROLS.search(ISOLATED.sub("", line))
    assert not re.search(r"(https?://|www\.)[^\s]*evil", mail.made.text + mail.made.html)
    assert "evil.example" not in mail.made.html  # clients make links of such words
    assert "49" not in mail.made.subject  # {{ 7*7 }} stays as it was typed
    assert "<img" not in mail.made.html
    assert "<script" not in mail.made.html


@pytest.mark.parametrize("locale", LOCALES)
@pytest.mark.parametrize("field", ["verificationLink", "resetLink", "invitationLink", "retryLink"])
@pytest.mark.parametrize(
    "link",
    [
        "javascript:alert(1)",
        "JaVaScRiPt:alert(1)//https://app.kyora.example/",
        "data:text/html,x",
        "http://app.kyora.example/x",
        "//app.kyora.example/x",
        "/x",
        "",
        "https://evil.example/x",
        "https://app.kyora.example.evil.example/",
        "https://app.kyora.example@evil.example/",
        "https://evil.example\\@app.kyora.example/",
        "https://app.kyora.example:8443/x",
        "https://app.kyora.example/x\r\nBcc: a@example.net",
        "https://app.kyora.example/\u202e",
        'https://app.kyora.example/"onclick="x',
        "https://app.kyora.example/<b>",
        " https://app.kyora.example/",
        "https://[::1/",
        "https://app.kyora.example/" + "x" * 8192,
    ],
)
def test_a_bad_link_is_refused_and_not_repeated(locale: str, field: str, link: str) -> None:
    template = next(t for t, (fields, _) in DOCUMENTED.items() if field in fields)
    with pytest.raises(NotRenderable) as refused:
        render(template, locale, sample(template, locale, "typical") | {field: link},
               settings=SETTINGS)  # fmt: skip
    assert refused.value.errors[0]["field"] == field
    assert not link or link not in repr(refused.value.document())


def test_it_says_who_wrote_why_and_where_to_ask(mail: Mail) -> None:
    footer = mail.page.all("td")[-1].text
    assert "Kyora" in footer
    assert SETTINGS.support_email in footer
    assert ("You receive this because" in footer) or ("وصلتك هذه الرسالة لأن" in footer)
    assert MESSAGE_ID in footer
    assert not re.search("unsubscribe|إلغاء الاشتراك في الرسائل", mail.made.html, re.IGNORECASE)


DENIALS = {
    "email_verification": ("If you did not create", "إن لم يكن إنشاء الحساب"),
    "forgot_password": ("If you did not ask for it", "إن لم يكن الطلب منك"),
    "workspace_invitation": ("If you do not know who sent it", "إن لم يكن المُرسِل معروفًا"),
}


@pytest.mark.parametrize("template", DENIALS)
def test_security_mails_say_what_to_do_when_it_was_not_me(template: str) -> None:
    for locale, words in zip(LOCALES, DENIALS[template], strict=True):
        made = written(template, locale, "typical").made
        assert words in " ".join(made.html.split())
        assert words in " ".join(made.text.split())


@pytest.mark.parametrize("template", [t.id for t in MAILS.values() if t.expiring_link])
def test_links_say_how_long_they_live(template: str) -> None:
    seconds = int(MAILS[template].lifetime.total_seconds())
    for locale, words in (
        ("en", {900: "15 minutes", 604_800: "7 days"}),
        ("ar", {900: "15 دقيقة", 604_800: "7 أيام"}),
    ):
        made = written(template, locale, "typical").made
        assert words[seconds] in made.html
        assert words[seconds] in made.text
        assert ("once" in made.text) or ("مرة واحدة" in made.text)


def test_a_reply_reaches_someone(mail: Mail) -> None:
    assert not re.search("no-?reply|do not reply", mail.made.html + mail.made.text, re.IGNORECASE)


def test_the_token_stands_in_its_link_and_nowhere_else(mail: Mail) -> None:
    links = [v for n, v in mail.data.items() if n.endswith("Link") and "token=" in v]
    rest = mail.made.subject + mail.made.preheader + mail.made.text + html.unescape(mail.made.html)
    for link in links:
        rest = rest.replace(link, "")
        assert link.partition("token=")[2].partition("&")[0] not in rest
    assert "token" not in rest


@pytest.mark.parametrize("locale", LOCALES)
@pytest.mark.parametrize("template", MAILS)
def test_it_reads_as_it_was_approved(template: str, locale: str) -> None:
    """`UPDATE_SNAPSHOTS=1 make test T=tests/unit/test_email_render.py` approves what is."""
    made = written(template, locale, "typical").made
    head = f"Subject: {made.subject}\nPreheader: {made.preheader}\n\n"
    for kind, content in (("html", _normal(made.html)), ("txt", head + made.text)):
        file = SNAPSHOTS / f"{template}.{locale}.{kind}"
        if os.environ.get("UPDATE_SNAPSHOTS"):
            file.write_text(content)
        assert content == file.read_text(), f"{file.name} differs"


def _normal(page: str) -> str:
    """Leave out the style sheet and the filler, which are the same everywhere; lines by element."""
    page = re.sub(r"(?s)<style>.*?</style>", "<style>…</style>", page)
    page = page.replace("&#847;&zwnj;&nbsp;", "")
    page = re.sub(r"\s*(</?(table|tr|td|th|p|h1|div|body|head|html)\b)", r"\n\1", page)
    return "\n".join(line.rstrip() for line in page.strip().splitlines() if line.strip()) + "\n"


def test_it_is_the_same_every_time() -> None:
    first = [written(*case) for case in CASES]
    environment.cache_clear()  # a new process
    for mail in reversed(first):
        again = render(
            mail.template, mail.locale, mail.data, message_id=MESSAGE_ID, settings=SETTINGS
        )
        assert again == mail.made


def _names(locale: str, name: str) -> Any:
    return environment("html", locale).parse((TEMPLATE_FOLDER / locale / name).read_text())


def test_both_languages_have_the_same_words_files_and_parts() -> None:
    files = {locale: {f.name for f in (TEMPLATE_FOLDER / locale).iterdir()} for locale in LOCALES}
    assert files["en"] == files["ar"] == {f"{name}.j2" for name in [*MAILS, "words"]}
    words = {
        locale: {n for n in vars(environment("html", locale).globals["words"]) if n[0] != "_"}
        for locale in LOCALES
    }
    assert words["en"] == words["ar"]
    for name in files["en"]:
        shapes = []
        for locale in LOCALES:
            tree = _names(locale, name)
            calls = [
                call.node.name
                for call in tree.find_all(nodes.Call)
                if isinstance(call.node, nodes.Name)
            ]
            blocks = [block.name for block in tree.find_all(nodes.Block)]
            shapes.append((blocks, calls if name != "words.j2" else []))
        assert shapes[0] == shapes[1], name


def test_both_layouts_have_the_same_components_and_blocks() -> None:
    found = {}
    for kind in ("html", "text"):
        tree = {
            name: environment(kind, "en").parse((TEMPLATE_FOLDER / kind / name).read_text())
            for name in ("layout.j2", "components.j2")
        }
        macros = [
            (macro.name, [a.name for a in macro.args])
            for macro in tree["components.j2"].find_all(nodes.Macro)
        ]
        blocks = {block.name for block in tree["layout.j2"].find_all(nodes.Block)}
        found[kind] = (sorted(macros), blocks)
    assert found["html"] == found["text"]


@functools.cache
def _variables(kind: str, locale: str, name: str, seen: frozenset[str] = frozenset()) -> set[str]:
    """Return the variables of a template and of everything it extends, includes or imports."""
    env = environment(kind, locale)
    source, _, _ = env.loader.get_source(env, name)  # type: ignore[union-attr]
    tree = env.parse(source)
    # Jinja calls what the file imports at its top undeclared in its blocks.
    imported = {name for node in tree.find_all(nodes.FromImport) for name in node.names}
    found = meta.find_undeclared_variables(tree) - imported
    for other in meta.find_referenced_templates(tree):
        assert other is not None, "a computed template name cannot be checked"
        if other not in seen:
            found |= _variables(kind, locale, other, seen | {other})
    return found - set(env.globals) - {"caller"}


@pytest.mark.parametrize("locale", LOCALES)
@pytest.mark.parametrize("kind", ["html", "text"])
@pytest.mark.parametrize("template", MAILS)
def test_the_fields_of_the_model_are_the_variables_of_the_template(
    template: str, kind: str, locale: str
) -> None:
    used = _variables(kind, locale, f"{template}.j2")
    assert used - COMMON == set(MAILS[template].data.model_fields)


def test_what_every_template_is_given_is_used() -> None:
    used = {
        name
        for template in MAILS
        for kind in ("html", "text")
        for name in _variables(kind, "en", f"{template}.j2")
    }
    assert used >= COMMON


@pytest.mark.parametrize("template", DOCUMENTED)
def test_a_mail_that_was_agreed_keeps_its_variables_and_its_subject(template: str) -> None:
    """A new mail needs no line above: its snapshot holds what it says."""
    needed, subject = DOCUMENTED[template]
    fields = MAILS[template].data.model_fields.values()
    assert {field.alias for field in fields if field.is_required()} == needed
    data = {name: v for name, v in sample(template, "en", "typical").items() if name in needed}
    made = render(template, "en", data, settings=SETTINGS)
    assert made.subject == subject.format(**data)


@pytest.mark.parametrize("template", MAILS)
def test_missing_and_unknown_fields_are_refused_by_name(template: str) -> None:
    fields = MAILS[template].data.model_fields.values()
    for field in [str(field.alias) for field in fields if field.is_required()]:
        data = sample(template, "en", "minimal")
        del data[field]
        with pytest.raises(NotRenderable) as refused:
            render(template, "en", data, settings=SETTINGS)
        assert [e["field"] for e in refused.value.errors] == [field]
    with pytest.raises(NotRenderable) as refused:
        render(template, "en", sample(template, "en", "minimal") | {"surplus": 1},
               settings=SETTINGS)  # fmt: skip
    assert [e["field"] for e in refused.value.errors] == ["surplus"]


def test_an_unknown_template_is_refused() -> None:
    with pytest.raises(NotRenderable):
        render("newsletter", "en", {}, settings=SETTINGS)


@pytest.mark.parametrize(
    ("tag", "lang"),
    [("ar", "ar"), ("ar-EG", "ar"), ("AR_sa", "ar"), ("en-GB", "en"), ("fr", "en"), ("", "en"),
     (None, "en"), ("arz", "en")],
)  # fmt: skip
def test_a_language_tag_finds_its_locale(tag: str | None, lang: str) -> None:
    made = render("welcome", tag, sample("welcome", "en", "typical"), settings=SETTINGS)
    assert f'<html lang="{lang}"' in made.html


def test_a_model_is_data_too() -> None:
    model = MAILS["welcome"].data.model_validate({"name": "Dana", "workspaceName": "Shop"})
    assert render("welcome", "en", model, settings=SETTINGS) == render(
        "welcome", "en", {"name": "Dana", "workspaceName": "Shop"}, settings=SETTINGS
    )


@pytest.mark.parametrize(
    ("amount", "currency", "shown"),
    [(2900, "usd", "29.00 USD"), (5, "EUR", "0.05 EUR"), (1234567, "USD", "12,345.67 USD"),
     (1500, "JPY", "1,500 JPY"), (1500, "KWD", "1.500 KWD"), (1500, "UGX", "15.00 UGX"),
     (0, "USD", "0.00 USD")],
)  # fmt: skip
def test_money_is_written_in_its_own_digits(amount: int, currency: str, shown: str) -> None:
    data = {"name": "D", "retryLink": "https://app.kyora.example/billing", "amount": amount,
            "currency": currency}  # fmt: skip
    made = render("payment_failed", "ar", data, settings=SETTINGS)
    assert f'<bdi dir="ltr">{shown}</bdi>' in made.html
    assert f": {shown}\n" in made.text


@pytest.mark.parametrize("surplus", [{"amount": 1}, {"currency": "USD"}])
def test_an_amount_has_a_currency(surplus: dict[str, Any]) -> None:
    data = {"name": "D", "retryLink": "https://app.kyora.example/billing"} | surplus
    with pytest.raises(NotRenderable):
        render("payment_failed", "en", data, settings=SETTINGS)


def test_templates_cannot_switch_escaping_off() -> None:
    for file in TEMPLATE_FOLDER.rglob("*.j2"):
        source = file.read_text()
        assert not re.search(r"\|\s*safe|Markup|autoescape|\{%-?\s*raw", source), file
        assert not re.search(r"=(?!\")", re.sub('"[^"]*"', '""', _markup(source))), file
        for link in re.findall(r'href="([^"]*)"', source):
            assert re.fullmatch(r"\{\{ link \| href \}\}|mailto:\{\{ support_email \}\}", link)


def _markup(source: str) -> str:
    """Return the HTML of a template: without Jinja's tags, comments and the style sheet."""
    source = re.sub(r"(?s)\{#.*?#\}|\{%.*?%\}|<style>.*?</style>|<!--.*?-->", "", source)
    return "".join(re.findall(r"<[^>]+>", re.sub(r"\{\{.*?\}\}", "", source)))


def test_a_link_that_no_policy_has_seen_is_not_written() -> None:
    macro = environment("html", "en").get_template("components.j2").module.button
    with pytest.raises(TypeError):
        macro("Go", "https://app.kyora.example/")


def test_arabic_counts_as_arabic_does() -> None:
    duration = environment("text", "ar").globals["words"].duration
    minutes = {1: "دقيقة واحدة", 2: "دقيقتين", 3: "3 دقائق", 10: "10 دقائق", 11: "11 دقيقة"}
    for number, words in minutes.items():
        assert duration(number * 60) == words
    assert duration(2 * 3600) == "ساعتين"
    assert duration(24 * 3600) == "يوم واحد"
    assert environment("text", "en").globals["words"].duration(3600) == "1 hour"


def test_names_against_the_direction_are_isolated() -> None:
    data = {"name": "منى", "workspaceName": "Shop"}
    english = render("welcome", "en", data, settings=SETTINGS)
    assert "Hi \u2068منى\u2069," in english.text
    assert "Hi <bdi>منى</bdi>," in english.html
    arabic = render("welcome", "ar", data, settings=SETTINGS)
    assert "مرحبًا منى،" in arabic.text
    assert "\u2068Shop\u2069" in arabic.text


def test_names_against_the_direction_are_isolated_in_a_subject_too() -> None:
    data = sample("workspace_invitation", "en", "typical")
    names = {"inviterName": "منى", "workspaceName": "أرز (2)"}
    english = render("workspace_invitation", "en", data | names, settings=SETTINGS)
    assert english.subject == "\u2068منى\u2069 invited you to \u2068أرز (2)\u2069"
    arabic = render("workspace_invitation", "ar", data, settings=SETTINGS)
    assert "\u2068Omar Nassar\u2069" in arabic.subject
    long = render(
        "workspace_invitation", "en", data | {"inviterName": "منى" * 30}, settings=SETTINGS
    )
    assert re.match("\u2068(منى)+م?ن?…\u2069 invited", long.subject)


@pytest.mark.parametrize("template", MAILS)
def test_our_name_is_isolated_in_an_arabic_sentence(template: str) -> None:
    """The full stop after a Latin name goes to the wrong side of it where nothing isolates it."""
    made = written(template, "ar", "typical").made
    (rest, _, signature) = made.text.partition("\n-- \n")
    for line in [*rest.splitlines()[1:], *signature.splitlines()]:
        bare = ISOLATED.sub("", line)
        assert not re.search(r"Kyora[.،:]", bare), line
    assert not re.search(r"Kyora(?!</bdi>)[.،:]", made.html)


@pytest.mark.parametrize("template", ["payment_failed", "trial_ending"])
def test_a_day_has_its_zone(template: str) -> None:
    """Half past nine in the evening by UTC is the next day in the Gulf."""
    late = {"nextAttemptAt": "2026-11-30T21:30:00Z", "trialEnd": "2026-12-01T01:30:00+04:00"}
    for locale, shown in (
        ("en", "30 November 2026, 21:30 UTC"),
        ("ar", "30 نوفمبر 2026، 21:30 بتوقيت غرينتش"),
    ):
        data = sample(template, locale, "typical")
        made = render(
            template, locale, data | {n: v for n, v in late.items() if n in data}, settings=SETTINGS
        )
        for part in (made.text, html.unescape(made.html)):
            assert shown in " ".join(part.replace("\u00a0", " ").split())


def test_the_plain_text_has_names_as_they_were_typed_and_a_signature() -> None:
    data = {"name": "v2.10", "workspaceName": "Booking.com"}
    made = render("welcome", "en", data, settings=SETTINGS)
    assert "Hi v2.10," in made.text
    assert "Booking.com is ready." in made.text
    assert made.text.count("\n-- \n") == 1


def test_every_word_of_the_arabic_mails_is_arabic() -> None:
    for template in MAILS:
        made = written(template, "ar", "typical").made
        words = set(re.findall(r"[A-Za-z]{2,}", re.sub(r"\S+(://|@|_)\S+|eml_\w+", "", made.text)))
        assert words <= {"Kyora", "USD", "zip"}, template  # zip: the end of a file's name
        assert any(unicodedata.bidirectional(c) == "AL" for c in made.subject)


def test_what_mails_say_stands_in_templates_only() -> None:
    root = Path(__file__).resolve().parents[2]
    for folder in (root / "functions", root / "layers" / "kyora" / "kyora"):
        for file in folder.rglob("*.py"):
            tree = ast.parse(file.read_text())
            texts = [n.value for n in ast.walk(tree) if isinstance(n, ast.Constant)]
            for text in (t for t in texts if isinstance(t, str)):
                assert not re.search(r"<(html|body|table|td|p|div|a|h1|br)\b[^>]*>", text), file
                assert not re.search("[\u0621-\u064a]", text), file
            for call in (n for n in ast.walk(tree) if isinstance(n, ast.Call)):
                if ast.unparse(call.func).rpartition(".")[2] == "Message":
                    given = {k.arg: ast.unparse(k.value) for k in call.keywords}
                    parts = [given[name] for name in ("subject", "html", "text")]
                    assert parts == ["written.subject", "written.html", "written.text"], file


def test_a_long_token_is_no_fault() -> None:
    data = {"name": "D", "resetLink": "https://app.kyora.example/r?token=" + "x" * 4096}
    assert data["resetLink"] in render("forgot_password", "ar", data, settings=SETTINGS).text


def test_declarations_are_read_as_written() -> None:
    assert declarations("color:#fff; margin:0 1px;") == {"color": "#fff", "margin": "0 1px"}
