"""The project itself: README and checks agree, the pages run, and no file outgrows its idea."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
SETUP = {
    "main job": 'python -m pip install -c tests/constraints.txt -e ".[all]" && python -m tsgu',
    "tests": 'python -m pip install -c tests/constraints.txt -e ".[all,test]" && python -m pytest',
}


def test_the_readme_has_exactly_the_two_commands():
    """A set-up step that only its author knows."""
    assert re.findall(r"^python -m pip install .*$", README, re.MULTILINE) == list(SETUP.values())


def test_the_checks_take_the_test_command_out_of_the_readme():
    """Checks that pass on a command nobody is told of."""
    run = (ROOT / ".ci" / "run").read_text()
    pattern = re.search(r"grep -E '(.*)' README\.md", run).group(1)
    assert re.findall(pattern, README, re.MULTILINE) == [SETUP["tests"]]
    assert 'eval "$command"' in run
    assert "pip install" not in run.replace(pattern, "")
    assert "run: bash .ci/run" in (ROOT / ".github" / "workflows" / "ci.yml").read_text()


PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_python_blocks_of_a_page_run(page, tmp_path):
    """An example that does not work when pasted. The blocks of a page run one after the other, as a reader would."""
    code = "\n".join(re.findall(r"^```python\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL))
    if code:
        subprocess.run([sys.executable, "-W", "error::UserWarning", "-c", code], check=True, cwd=tmp_path)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_between_pages_lead_somewhere(page):
    """A page that was renamed."""
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text()):
        assert (page.parent / target).exists(), target


def test_every_requirement_that_is_tested_is_pinned():
    """A new release that breaks the set-up of a newcomer overnight."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    names = {re.split(r"[\[<>=]", requirement)[0] for requirement in project["dependencies"]}
    for extra in ("torch", "jax", "interop", "amg", "plot", "pardiso", "test", "bench", "docs"):
        names |= {re.split(r"[\[<>=]", r)[0] for r in project["optional-dependencies"][extra]}
    pins = (ROOT / "tests" / "constraints.txt").read_text()
    assert {name for name in names - {"tsgu"} if not re.search(rf"^{name}==", pins, re.MULTILINE)} == set()


def test_no_file_outgrows_400_lines():
    """A file of more than one idea."""
    files = [path for name in ("tsgu", "tsgu_jax", "tests") for path in (ROOT / name).rglob("*.py")]
    assert len(files) > 30
    assert {path.name for path in files if len(path.read_text().splitlines()) > 400} == set()


def test_public_names_have_a_docstring_with_an_example():
    """A name that ``help`` says nothing about."""
    import tsgu

    for name in tsgu.__all__:
        documentation = getattr(tsgu, name).__doc__
        assert ">>> " in documentation or name in ("ColumnInfo", "Log"), name
