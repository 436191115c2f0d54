"""A page of the site as the checks see it: what it links to, what it loads, what can be linked to, and its text."""

from functools import cache
from html.parser import HTMLParser
from pathlib import Path

LOADING = {"script": "src", "img": "src", "iframe": "src", "source": "src", "object": "data", "video": "src"}
"""Elements that have the browser fetch something, and the attribute that says what; ``link`` beside them."""

VERBATIM = ("script", "style", "code", "pre", "noscript")


class Page(HTMLParser):
    def __init__(self, html: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loads: list[str] = []
        self.anchors: set[str] = set()
        self.tags: list[str] = []
        self.classes: list[str] = []
        self.text: list[str] = []
        self.attributes: dict[str, str] = {}  # of <html>
        self._verbatim: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attributes}
        self.tags.append(tag)
        self.classes += given.get("class", "").split()
        self.anchors |= {given[name] for name in ("id", "name") if name in given}
        if tag == "html":
            self.attributes = given
        if tag == "a" and "href" in given:
            self.links.append(given["href"])
        if tag == "link" and "href" in given:
            self.loads.append(given["href"])
        if LOADING.get(tag) in given:
            self.loads.append(given[LOADING[tag]])
        if tag in VERBATIM:
            self._verbatim.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if self._verbatim and self._verbatim[-1] == tag:
            self._verbatim.pop()

    def handle_data(self, data: str) -> None:
        if not self._verbatim:
            self.text.append(data)


@cache
def read(path: Path) -> Page:
    return Page(path.read_text())
