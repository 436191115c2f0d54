"""A method that is added as the page on contributing says is known wherever methods are known."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="needs torch")
pytest.importorskip("jax", reason="needs jax")

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "contributing.md").read_text()


def run(*arguments: str) -> str:
    """The output of Python in the root of the project, which must succeed."""
    done = subprocess.run([sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def passed(output: str) -> int:
    return int(re.search(r"(\d+) passed", output).group(1))


@pytest.mark.parametrize(
    ("cells", "least"),
    [
        ("conjugate_residuals and torch", 60),
        ("conjugate_residuals and jax and (gradients_equal or capped)", 2),
    ],
    ids=["torch", "jax"],
)
def test_the_contract_suite_is_run_for_a_new_method(cells, least):
    """Catches: a suite that goes by a list of its own, which the author of a method does not know of."""
    output = run("-m", "pytest", "-p", "tests.recipe.plugin", "-n", "0", "-q", "tests/contract", "-k", cells)
    assert passed(output) >= least


def test_the_command_line_and_the_tables_of_the_documentation_know_a_new_method():
    """Catches: lists of methods that are written down a second time."""
    code = """
import sys
sys.path.insert(0, "docs/_extension")
import tests.recipe.plugin
import tables
from tsgu._cli._main import main
print(tables.fill("{{table of methods}}"), tables.fill("   {{methods}}"), sep="\\n")
sys.exit(main(["--method", "conjugate_residuals"]))
"""
    output = run("-c", code)
    assert "| `conjugate_residuals` | Hermitian positive definite | 6 | 1 product |" in output
    assert "\n   conjugate_residuals\n" in output
    assert len(re.findall(r"^conjugate_residuals .* ok$", output, re.MULTILINE)) == 2


@pytest.mark.parametrize(("what", "most"), [("a method", 6), ("a preconditioner", 5)])
def test_the_recipe_names_few_files_and_each_is_there(what, most):
    """Catches: a recipe that grows, and one that was not followed when files moved."""
    section = re.search(rf"^## Adding {what}$(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL).group(1)
    files = set(re.findall(r"`((?:tsgu|tsgu_jax|docs)/[\w./]+\.\w+)`", section))
    assert 0 < len(files) <= most
    assert [name for name in files if not (ROOT / name).is_file()] == []
