"""template.yaml keeps its word: the list at its top, its sections, and the README's table agree."""

import re
from dataclasses import dataclass, field
from typing import Any

from local import template
from local.settings import ROOT

TEXT = template.FILE.read_text()


@dataclass
class Section:
    """What stands between a banner and the next; `groups` are its `# ----` headings."""

    title: str
    resources: list[str] = field(default_factory=list)
    groups: dict[str, list[str]] = field(default_factory=dict)

    @property
    def functions(self) -> list[str]:
        found = [name for name in self.resources if name.endswith("Function")]
        return [template.folder(name) for name in found]


def sections(text: str) -> list[Section]:
    """The sections of the Resources, in order; a banner that is not listed opens none."""
    resources = re.split(r"^(?:Resources|Outputs):$", text, flags=re.MULTILINE)[1]
    found: list[Section] = []
    group = ""
    for line in resources.splitlines():
        if banner := re.match(r"  #  ([A-Z][\w -]*?)(?::|$)", line):
            if banner[1] in listed(text):
                found.append(Section(banner[1]))
                group = ""
        elif heading := re.match(r"  # ---- (.+)", line):
            group = heading[1]
            found[-1].groups[group] = []
        elif resource := re.match(r"  (\w+):$", line):
            found[-1].resources.append(resource[1])
            if group:
                found[-1].groups[group].append(resource[1])
    return found


def listed(text: str) -> dict[str, list[str]]:
    """The list at the top: each section's title with the functions that it names."""
    head = text.partition("\nParameters:")[0]
    found: dict[str, list[str]] = {}
    for line in head.splitlines():
        if line.startswith("#   "):
            title = re.match(r"#   ([A-Z][\w -]*?)(?: ─|$)", line)
            names = found.setdefault(title[1], []) if title else found[list(found)[-1]]
            names += re.findall(r"[a-z]+(?:_[a-z]+)+", line)
    return found


def test_the_list_at_the_top_is_the_sections_with_their_functions() -> None:
    in_sections = {section.title: section.functions for section in sections(TEXT)}
    assert list(listed(TEXT).items()) == list(in_sections.items())
    declared = {template.folder(name) for name in template.functions(template.read())}
    assert {name for names in in_sections.values() for name in names} == declared


def test_a_block_in_the_wrong_section_is_noticed() -> None:
    moved = TEXT.replace("  HttpApi:\n", "  SweepBillingFunction:\n    Type: X\n\n  HttpApi:\n", 1)
    assert sections(moved)[0].functions != listed(moved)["Front door"]


def test_alarms_stand_under_the_section_that_they_watch() -> None:
    """A group of alarms is named for a section, and follows the order of the sections."""
    found = {section.title: section for section in sections(TEXT)}
    groups = found["Alarms"].groups
    titles = [title for title in found if title in groups]
    assert list(groups) == ["All sections", *titles]
    section_of = {name: s.title for s in found.values() for name in s.resources}
    resources = template.read()["Resources"]
    for title, names in groups.items():
        for name in names:
            dimensions = resources[name]["Properties"].get("Dimensions", ())
            watched = {section_of[id_] for item in dimensions for id_ in ids(item["Value"])}
            assert watched <= {title}, name


def ids(value: Any) -> list[str]:
    """The resource that a value refers to, if any."""
    if not isinstance(value, dict):
        return []
    [(function, argument)] = value.items()
    if function == "Fn::GetAtt":
        return [argument[0]]
    return [argument] if function == "Ref" and argument != "Stage" else []


def test_the_table_of_functions_has_the_order_of_the_sections() -> None:
    ordered = [name for section in sections(TEXT) for name in section.functions]
    tables = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    rows = [re.findall(r"^\| `([a-z_]+)` \|", file.read_text(), re.MULTILINE) for file in tables]
    shown = [[name for name in names if name in ordered] for names in rows]
    assert [names for names in shown if len(names) > 5] == [ordered]
