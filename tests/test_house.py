"""The rooms of the packages: which may import which, and the same names for the same roles in both."""

import ast
import re
from pathlib import Path

import pytest
from importlinter.cli import EXIT_STATUS_SUCCESS, lint_imports

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "architecture.md").read_text()
ROOMS = ("_matrix", "_rule", "_methods", "precond")

# What only one of the packages needs, and why.
ALONE = {
    "tsgu/_matrix/_autocast.py": "only torch has autocast",
    "tsgu/_matrix/_internals.py": "that of JAX stands in its lowest room",
    "tsgu/_matrix/_origin.py": "only torch's sparse tensors lose second derivatives",
    "tsgu/_methods/_columns.py": "in JAX arithmetic of columns is that of arrays, and stands with the matrices",
    "tsgu/_rule/_blocks.py": "in JAX a batch is the program's own",
    "tsgu/_rule/_dynamo.py": "what torch.compile is to leave alone",
    "tsgu/_rule/_outcome.py": "in JAX that is part of a program, and stands in the lowest room",
    "tsgu/_rule/_implicit_function.py": "custom_linear_solve differentiates functions by itself",
    "tsgu/_rule/_recipe.py": "JAX refuses a recipe, since a program has no values to build it of",
    "tsgu_jax/_matrix/_columns.py": "see tsgu/_methods/_columns.py",
    "tsgu_jax/_matrix/_layout.py": "torch's own CSR product needs no layout",
    "tsgu_jax/_matrix/_same.py": "only JAX knows a program by its identity",
    "tsgu_jax/_methods/_levels.py": "torch solves triangles by itself",
    "tsgu_jax/_methods/_seen.py": "in torch a column keeps this itself",
    "tsgu_jax/_methods/_substitution.py": "torch solves triangles by itself",
    "tsgu_jax/_rule/_run.py": "only JAX compiles a solve",
    "tsgu_jax/precond/_incomplete.py": "the host's side of factors, for compiled programs",
    "tsgu_jax/precond/_levels.py": "that of amg",
}


def test_no_room_imports_one_above_it():
    """Catches: a circle of files, which can only be read all at once."""
    assert lint_imports(no_cache=True) == EXIT_STATUS_SUCCESS


def test_both_packages_have_the_same_files_in_their_rooms():
    """Catches: one role under two names, and a file that only one package needs without anybody saying why."""
    files = {
        package: {path.relative_to(ROOT / package) for room in ROOMS for path in (ROOT / package / room).glob("*.py")}
        for package in ("tsgu", "tsgu_jax")
    }
    alone = {f"tsgu/{path}" for path in files["tsgu"] - files["tsgu_jax"]}
    alone |= {f"tsgu_jax/{path}" for path in files["tsgu_jax"] - files["tsgu"]}
    assert alone == set(ALONE)


LATE = {
    "tsgu/__init__.py": "names are loaded when they are first used",
    "tsgu/_cli/_main.py": "an interruption while libraries load ends quietly",
    "tsgu/_matrix/_pattern.py": "the type that Pattern.matrix returns, for type checkers alone",
    "tsgu_jax/_matrix/_pattern.py": "the same",
    "tsgu_jax/interop/__init__.py": "where torch2jax is installed",
}
"""Where something is imported elsewhere than at the top of a file, and why."""


def _imports_inside(tree: ast.Module) -> list[str]:
    """The modules of the packages that are imported anywhere but at the top of a file."""
    top = {id(node) for node in tree.body}
    nodes = [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom) and id(node) not in top]
    names = [node.module or "" if isinstance(node, ast.ImportFrom) else node.names[0].name for node in nodes]
    return [name for name in names if name.partition(".")[0] in ("tsgu", "tsgu_jax")]


@pytest.mark.parametrize("package", ["tsgu", "tsgu_jax"])
def test_nothing_is_imported_inside_a_function_to_dodge_a_circle(package):
    """Catches: a circle that import-linter sees and a reader does not."""
    found = {
        str(path.relative_to(ROOT)): names
        for path in (ROOT / package).rglob("*.py")
        if (names := _imports_inside(ast.parse(path.read_text())))
    }
    assert set(found) - set(LATE) == set()


def test_architecture_shows_every_file_of_a_room():
    """Catches: a page that was right once."""
    tree = re.search(r"^```text\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL).group(1)
    missing = [
        str(path.relative_to(ROOT))
        for package in ("tsgu", "tsgu_jax")
        for path in (ROOT / package).rglob("_*.py")
        if path.name not in ("__init__.py", "__main__.py") and "_cli" not in path.parts and path.name not in tree
    ]
    assert missing == []


def test_architecture_shows_the_way_of_a_call_in_fewer_than_twelve_files():
    """Catches: a way that goes up and down, and a page that names files which have moved."""
    section = re.search(r"^## The path of a call$(.*?)^## ", PAGE, re.MULTILINE | re.DOTALL).group(1)
    files = re.findall(r"`((?:\w+/)*_\w+)\.\w+`", section)
    assert 5 < len(files) < 12
    assert len(set(files)) == len(files)
    assert [name for name in files if not (ROOT / "tsgu" / f"{name}.py").is_file()] == []
