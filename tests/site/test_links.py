"""Links, anchors and resources of the built site, by its HTML alone."""

import re
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from tests.site.page import Page, read


def pages(site: Path) -> list[Path]:
    found = sorted(site.rglob("*.html"))
    return [path for path in found if "_static" not in path.parts]


def is_outside(address: str) -> bool:
    return bool(urlsplit(address).netloc) or urlsplit(address).scheme in ("http", "https", "ftp")


def dead(path: Path, addresses: Iterable[str]) -> list[str]:
    """Those that lead to no file, or to no anchor of one."""
    broken = []
    for address in addresses:
        if is_outside(address) or address.startswith(("mailto:", "data:", "javascript:")):
            continue
        parts = urlsplit(address)
        target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
        if target.is_dir():
            target /= "index.html"
        anchor = unquote(parts.fragment)
        if not target.is_file() or (anchor and target.suffix == ".html" and anchor not in read(target).anchors):
            broken.append(f"{path.name} -> {address}")
    return broken


def test_no_link_or_anchor_is_dead(site):
    """Catches: a page or a section that was renamed, and a name of the reference that is not there."""
    broken = [link for path in pages(site) for link in dead(path, {*read(path).links, *read(path).loads})]
    assert broken == []


def test_nothing_is_loaded_from_outside(site):
    """Catches: a font, a script or a style that is missing without a network, and tells somebody else who reads."""
    found = [f"{path.name}: {address}" for path in pages(site) for address in read(path).loads if is_outside(address)]
    assert found == []


def test_no_style_loads_from_outside(site):
    """Catches: the same by way of CSS."""
    styles = list(site.rglob("*.css"))
    assert styles
    found = {
        f"{style.name}: {address}"
        for style in styles
        for address in re.findall(r"(?:@import|url)\s*\(?\s*['\"]?((?:https?:)?//[^'\")\s]+)", style.read_text())
    }
    assert found == set()


@pytest.mark.parametrize(
    "page",
    [
        *("index", "guide", "installation", "quickstart", "choosing", "gradients", "conventions", "convergence"),
        *("torch_and_jax", "performance", "migrating", "architecture", "contributing", "changelog", "api/index"),
        *("gallery/index", "api/generated/tsgu.linear_cg", "api/generated/tsgu_jax.precond.amg"),
    ],
)
def test_a_page_is_there_and_is_reached_from_the_front(site, page):
    """Catches: a page that is built and that nobody finds."""
    reached, waiting = set(), [site / "index.html"]
    while waiting:
        path = waiting.pop()
        if path in reached or not path.is_file() or path.suffix != ".html":
            continue
        reached.add(path)
        targets = (urlsplit(link).path for link in read(path).links if not is_outside(link))
        waiting += [(path.parent / unquote(target)).resolve() for target in targets if target]
    assert site / f"{page}.html" in reached


def test_every_example_is_in_the_gallery_with_its_script(site):
    """Catches: an example that was not run, or not listed."""
    scripts = {path.stem for path in (Path(__file__).parents[2] / "docs" / "examples").rglob("[!_]*.py")}
    assert scripts
    assert {path.stem for path in (site / "gallery").rglob("*.html")} >= scripts
    assert {name for name in scripts if not any(f"{name}.py" in link for link in _downloads(site, name))} == set()


def _downloads(site: Path, name: str) -> list[str]:
    return next(read(path).links for path in (site / "gallery").rglob(f"{name}.html"))


def test_the_checks_find_what_is_broken(tmp_path):
    """Catches: checks that cannot fail."""
    other = tmp_path / "other.html"
    other.write_text('<p id="here">')
    page = tmp_path / "page.html"
    page.write_text(
        '<a href="other.html#here">1</a><a href="other.html#gone">2</a><a href="gone.html">3</a><a href="#gone">4</a>'
        '<img src="https://elsewhere.org/a.png"><script src="//elsewhere.org/b.js"></script>'
    )
    found = Page(page.read_text())
    assert dead(page, found.links) == [f"page.html -> {end}" for end in ("other.html#gone", "gone.html", "#gone")]
    assert [address for address in found.loads if is_outside(address)] == found.loads
