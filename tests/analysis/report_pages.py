"""Small studies with figures, tables and records, and what stands in the page of one."""

import json
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path

VOID = {"meta", "img", "input", "br", "link"}


def record(name, **more):
    """A study.json as the engine leaves it."""
    return {
        "study": name,
        "settings": {"screen": "simulated", "model": {"weight_ce": 0.0, "weight_wass": 0.75, "weight_mse": 0.25}},
        "screen": {"name": "simulated", "sha256": "5c4ee7", "notes": ["control is called <control>"]},
        "embeddings": {"name": "good", "sha256": "e3bedd"},
        "folds": {"STAT1": 0, "JAK2": 1},
        "versions": {"histpert": "0.1.0"},
        "commit": "c0ffee",
        "uncommitted_changes": True,
        **more,
    }


def write_record(folder: Path, name: str, **more) -> Path:
    (folder / "study.json").write_text(json.dumps(record(name, **more)))
    return folder


@dataclass
class Page(HTMLParser):
    """A page, read with the standard library alone.

    Attributes:
        tables: Of each sortable table the rows, head first; a cell is its text and its attributes.
        text: Of the page, without its style and script.
        images: Attributes of each.
        open: Tags that are open; none at the end of a page whose tags match.
        elements: Of each element the tag and its attributes.
    """

    tables: list = field(default_factory=list)
    text: str = ""
    images: list = field(default_factory=list)
    open: list = field(default_factory=list)
    elements: list = field(default_factory=list)

    def __post_init__(self):
        super().__init__()

    def handle_starttag(self, tag, attrs):
        of = dict(attrs)
        self.elements.append((tag, of))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "img":
            self.images.append(of)
        elif tag == "table":
            self.is_sortable = of.get("class") == "sortable"
            if self.is_sortable:
                self.tables.append([])
        elif tag == "tr" and self.is_sortable:
            self.tables[-1].append([])
        elif tag in ("td", "th") and self.is_sortable:
            self.tables[-1][-1].append(["", of])

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] not in ("style", "script"):
            self.text += data
        if "table" in self.open and self.is_sortable and self.open[-1] in ("td", "th"):
            self.tables[-1][-1][-1][0] += data


def page_of(path: Path) -> Page:
    page = Page()
    page.feed(path.read_text(encoding="utf-8"))
    page.close()
    assert page.open == []
    page.text = " ".join(page.text.split())
    return page
