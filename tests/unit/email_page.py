"""A mail's HTML as a tree, and what a reader sees of it: colours, sizes, text."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser

VOID = {"meta", "br", "img", "hr", "link", "base", "input"}


@dataclass
class Node:
    """An element."""

    tag: str
    attrs: dict[str, str]
    parent: "Node | None" = None
    children: list["Node | str"] = field(default_factory=list)

    def all(self, *tags: str) -> Iterator["Node"]:
        """Return what is below, in the order of the document."""
        for child in self.children:
            if isinstance(child, Node):
                if not tags or child.tag in tags:
                    yield child
                yield from child.all(*tags)

    @property
    def text(self) -> str:
        return "".join(c.text if isinstance(c, Node) else c for c in self.children)

    @property
    def classes(self) -> list[str]:
        return self.attrs.get("class", "").split()

    @property
    def style(self) -> dict[str, str]:
        return declarations(self.attrs.get("style", ""))


class Page(HTMLParser):
    """Parses strictly: a tag that is not closed where it was opened is an error."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.root = self.at = Node("", {})
        self.comments: list[str] = []
        self.feed(html)
        self.close()
        assert self.at is self.root, f"<{self.at.tag}> is not closed"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len({name for name, _ in attrs}) == len(attrs), f"<{tag}> repeats an attribute"
        node = Node(tag, {name: value or "" for name, value in attrs}, self.at)
        self.at.children.append(node)
        if tag not in VOID:
            self.at = node

    def handle_endtag(self, tag: str) -> None:
        assert self.at.tag == tag, f"</{tag}> closes <{self.at.tag}>"
        assert self.at.parent is not None
        self.at = self.at.parent

    def handle_data(self, data: str) -> None:
        self.at.children.append(data)

    def handle_comment(self, data: str) -> None:
        self.comments.append(data)

    def all(self, *tags: str) -> list[Node]:
        return list(self.root.all(*tags))

    def one(self, tag: str) -> Node:
        (found,) = self.all(tag)
        return found

    @property
    def css(self) -> str:
        return "".join(node.text for node in self.all("style"))


def declarations(style: str) -> dict[str, str]:
    pairs = [part.split(":", 1) for part in style.split(";") if part.strip()]
    return {name.strip(): value.strip() for name, value in pairs}


def rules(css: str) -> list[tuple[str, dict[str, str]]]:
    """Return the flat rules of a style sheet, without what is around them."""
    found = re.findall(r"([^{}]+)\{([^{}]*)\}", css)
    return [(selector.strip(), declarations(body)) for selector, body in found]


def dark(page: Page) -> dict[str, dict[str, str]]:
    """Return what the dark scheme does to a class."""
    _, _, rest = page.css.partition("@media (prefers-color-scheme: dark) {")
    block, _, _ = rest.partition("\n}")
    return {
        selector.removeprefix("."): {n: v.removesuffix(" !important") for n, v in body.items()}
        for selector, body in rules(block)
    }


@dataclass(frozen=True)
class Seen:
    """A piece of text as it is painted."""

    text: str
    color: str
    background: str
    size: float
    bold: bool


def seen(page: Page, scheme: dict[str, dict[str, str]]) -> list[Seen]:
    """Return every visible text with its colours, under the class rules of a scheme."""
    found: list[Seen] = []

    def walk(node: Node, color: str, background: str, size: float, *, bold: bool) -> None:
        style = dict(node.style)
        for name in node.classes:
            style |= scheme.get(name, {})
        if style.get("display") == "none" or node.tag in {"style", "title"}:
            return
        color = style.get("color", color)
        background = style.get("background-color", background)
        if "font-size" in style:
            size = float(style["font-size"].removesuffix("px"))
        bold = int(style["font-weight"]) >= 600 if "font-weight" in style else bold
        for child in node.children:
            if isinstance(child, Node):
                walk(child, color, background, size, bold=bold)
            elif child.strip():
                found.append(Seen(child.strip(), color, background, size, bold))

    walk(page.one("body"), "#000000", "#ffffff", 16, bold=False)
    return found


def contrast(one: str, other: str) -> float:
    """Return the contrast ratio of WCAG 2."""
    lights = sorted((_luminance(one), _luminance(other)))
    return (lights[1] + 0.05) / (lights[0] + 0.05)


def _luminance(color: str) -> float:
    assert re.fullmatch(r"#[0-9a-f]{6}", color), color
    channels = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
