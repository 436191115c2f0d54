"""The project itself: README and checks agree, the pages run, and no file outgrows its idea."""

import ast
import importlib
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


DOCS = 'python -m pip install -c tests/constraints.txt -e ".[docs]"'
EXTRAS = 'python -m pip install -c tests/constraints.txt -e ".[all,test,pardiso,rslab]"'
OLDEST = 'python -m pip install -c tests/oldest.txt -e ".[all,test]"'


def test_the_readme_has_exactly_the_two_commands():
    """Catches: a set-up step that only its author knows."""
    assert re.findall(r"^python -m pip install .*$", README, re.MULTILINE) == list(SETUP.values())


def test_the_checks_take_the_test_command_out_of_the_readme():
    """Catches: checks that pass on a command nobody is told of."""
    run = (ROOT / ".ci" / "run").read_text()
    pattern = re.search(r"grep -E '(.*)' README\.md", run).group(1)
    assert re.findall(pattern, README, re.MULTILINE) == [SETUP["tests"]]
    assert 'eval "$command"' in run
    installs = re.findall(r"^.*pip install.*$", run.replace(pattern, ""), re.MULTILINE)
    assert set(installs) == {DOCS, EXTRAS, OLDEST}
    assert "run: bash .ci/run" in (ROOT / ".github" / "workflows" / "ci.yml").read_text()


def test_the_checks_build_the_site_as_contributing_says():
    """Catches: a site that only its author can build."""
    run = (ROOT / ".ci" / "run").read_text()
    page = (ROOT / "docs" / "contributing.md").read_text()
    block = next(block for block in re.findall(r"^```sh\n(.*?)^```$", page, re.MULTILINE | re.DOTALL) if DOCS in block)
    commands = block.splitlines()
    assert [command.split()[2] for command in commands] == ["pip", "sphinx", "pytest"]
    assert "-W" in commands[1].split()
    assert [command for command in commands if command not in run.splitlines()] == []


GENERATED = ("_build", "gallery", "generated")
PAGES = [
    ROOT / "README.md",
    *(page for page in sorted((ROOT / "docs").rglob("*.md")) if not set(GENERATED) & set(page.parts)),
]
# As pytest is told in pyproject.toml: what torch says once a process, whoever makes a sparse tensor.
OF_TORCH = ("Sparse invariant checks are implicitly disabled", "Sparse CSR tensor support is in beta state")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_python_blocks_of_a_page_run(page, tmp_path):
    """Catches: an example that does not work when pasted. The blocks of a page run one after the other, as a reader
    would.

    Blocks of ``py`` are code of other packages, to compare with.
    """
    code = "\n".join(re.findall(r"^```python\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL))
    if code:
        warnings = ["error::UserWarning", *(f"ignore:{start}:UserWarning" for start in OF_TORCH)]
        options = [part for filter_ in warnings for part in ("-W", filter_)]
        (tmp_path / "page.py").write_text(code)  # a file, so that a traceback shows its lines
        subprocess.run([sys.executable, *options, "page.py"], check=True, cwd=tmp_path)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_between_pages_lead_somewhere(page):
    """Catches: a page that was renamed."""
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text()):
        assert (page.parent / target).exists() or set(GENERATED) & set(Path(target).parts), target


def test_the_page_on_convergence_has_a_section_for_each_status():
    """Catches: a status that a reader meets and finds nothing about."""
    from tsgu._core.report._status import ADVICE

    page = (ROOT / "docs" / "convergence.md").read_text()
    sections = re.findall(r"^\(([a-z-]+)\)=\n## (.+)$", page, re.MULTILINE)
    assert {title for anchor, title in sections if anchor == title.replace(" ", "-")} == set(ADVICE)


@pytest.mark.parametrize(("install", "lane"), [(EXTRAS, "extra"), (OLDEST, "quick")])
def test_the_checks_run_the_environments_that_contributing_names(install, lane):
    """Catches: an environment that only its author knows, and one that is set up and not used."""
    commands = f"{install}\npython -m pytest -m {lane}"
    assert commands in (ROOT / ".ci" / "run").read_text()
    assert commands in (ROOT / "docs" / "contributing.md").read_text()


def test_the_oldest_versions_are_those_that_the_package_claims():
    """Catches: a lower bound that nobody has run."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    bounds = dict(r.split(">=") for r in [*project["dependencies"], *extras["jax"], *extras["amg"]])
    pins = dict(re.findall(r"^(\w+)==([\d.]+)$", (ROOT / "tests" / "oldest.txt").read_text(), re.MULTILINE))
    assert {name: pins[name] for name in bounds} == {
        name: f"{bound}.0" if bound.count(".") == 1 else bound for name, bound in bounds.items()
    }


def test_every_requirement_that_is_tested_is_pinned():
    """Catches: a new release that breaks the set-up of a newcomer overnight."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    names = {re.split(r"[\[<>=]", requirement)[0] for requirement in project["dependencies"]}
    for extra in ("torch", "jax", "interop", "amg", "plot", "pardiso", "rslab", "test", "bench", "docs"):
        names |= {re.split(r"[\[<>=]", r)[0] for r in project["optional-dependencies"][extra]}
    pins = (ROOT / "tests" / "constraints.txt").read_text()
    assert {name for name in names - {"tsgu"} if not re.search(rf"^{name}==", pins, re.MULTILINE)} == set()


def test_no_file_outgrows_400_lines():
    """Catches: a file of more than one idea."""
    files = [path for name in ("tsgu", "tsgu_jax", "tests") for path in (ROOT / name).rglob("*.py")]
    assert len(files) > 30
    assert {path.name for path in files if len(path.read_text().splitlines()) > 400} == set()


PUBLIC = ("tsgu", "tsgu.precond", "tsgu_jax", "tsgu_jax.precond", "tsgu_jax.interop")


@pytest.mark.parametrize("module", PUBLIC)
def test_public_names_have_a_docstring_with_an_example(module):
    """Catches: a name that ``help`` says nothing about."""
    namespace = importlib.import_module(module)
    without = [name for name in namespace.__all__ if ">>> " not in (getattr(namespace, name).__doc__ or "")]
    assert without == []


@pytest.mark.parametrize("module", PUBLIC)
def test_public_names_have_a_page_of_the_reference(module, monkeypatch):
    """Catches: a name that the site does not know."""
    monkeypatch.syspath_prepend(ROOT / "docs" / "_extension")
    tables = importlib.import_module("tables")
    listed: dict[str, set[str]] = {}
    for page in (ROOT / "docs" / "api").glob("*.rst"):
        current = ""
        for line in tables.fill(page.read_text()).splitlines():
            if line.startswith(".. currentmodule::"):
                current = line.split()[-1]
            elif re.fullmatch(r"   \w+", line):
                listed.setdefault(current, set()).add(line.strip())
    names = set(importlib.import_module(module).__all__) - {"precond"}
    assert names - listed[module] == set()


def test_each_test_says_which_bug_it_catches():
    """Catches: a test whose point nobody knows once it fails."""
    silent = [
        f"{path.name}: {node.name}"
        for path in sorted((ROOT / "tests").rglob("test_*.py"))
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
        if not (ast.get_docstring(node) or "").startswith("Catches: ")
    ]
    assert silent == []
