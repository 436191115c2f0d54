"""The built site in a browser: pictures loaded, formulas set, nothing wider than the window."""

from collections.abc import Callable

import pytest

from tests.site.browser import Shown, served
from tests.site.page import read


@pytest.fixture(scope="module")
def shown(site) -> Callable[[str], Shown]:
    pages: dict[str, Shown] = {}
    with served(site) as address:

        def show(name: str) -> Shown:
            if name not in pages:
                pages[name] = Shown(f"{address}/{name}")
            return pages[name]

        yield show


@pytest.fixture(params=["index", "quickstart", "gradients", "convergence", "gallery", "an example", "the reference"])
def name(request, site) -> str:
    example = next(path for path in sorted((site / "gallery").rglob("*.html")) if path.name != "index.html")
    special = {
        "gallery": "gallery/index.html",
        "an example": str(example.relative_to(site)),
        "the reference": "api/generated/tsgu.sparse_generic_solve.html",
    }
    return special.get(request.param, f"{request.param}.html")


def test_every_picture_loads(shown, name):
    """Catches: a figure whose file is missing, or is no picture."""
    broken = [source for source, width in shown(name).pictures.items() if width == 0]
    assert broken == []


def test_every_formula_is_set(shown, name, site):
    """Catches: formulas that need a network, or that MathJax does not understand."""
    page = shown(name)
    assert page.formulas == read(site / name).classes.count("math")
    assert "mjx-merror" not in page.page.tags
    assert "\\(" not in page.text
    assert "\\[" not in page.text


def test_a_page_fits_the_window(shown, name):
    """Catches: a table or a line of code that pushes the page sideways."""
    assert shown(name).overflow <= 0


def test_there_are_pictures_and_formulas(shown):
    """Catches: tests of pages that have neither."""
    assert shown("index.html").pictures
    assert shown("convergence.html").pictures
    assert shown("index.html").formulas > 3
    assert shown("gradients.html").formulas > 30
