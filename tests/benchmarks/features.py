"""See what tsgu, tsgu_jax and the libraries beside them can do: ``python tests/benchmarks/features.py``.

Every cell is the outcome of an experiment on a small system whose truth is known by dense algebra. The table is written
to ``docs/performance/features.md``. ``--short`` prints the rows for the README, from there. The libraries come with
``tsgu[bench]``; a few minutes.
"""

import argparse
import logging
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"  # set before NumPy loads: two threads of a busy BLAS can be slower than one

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from tests.benchmarks.feature_table.experiments import ROWS, warned  # noqa: E402 - found by the path above
from tests.benchmarks.feature_table.library import Library, NoAPIError  # noqa: E402
from tests.benchmarks.feature_table.ours import OURS  # noqa: E402
from tests.benchmarks.feature_table.peers import PEERS  # noqa: E402

PAGE = ROOT / "docs" / "performance" / "features.md"

SHORT = (
    "gradient of A",
    "gradient of a complex A",
    "gradient of a loss times 1e-12",
    "Hessian product, reverse over reverse",
    "forward mode",
    "too few steps in the adjoint alone",
    "methods",
    "factored once for solve and gradient",
    "multigrid preconditioner",
)

HEAD = """\
## What the libraries do

Each cell is what an experiment saw, on small systems whose truth is known by dense algebra, in double precision.
`python tests/benchmarks/features.py` repeats it.

- **yes**: the solution, or every entry of the derivative, is right to 1e-5; to 1e-3 for least squares, which are solved
  at the default tolerances.
- **off by**: the relative error, without a word from the library unless it says "warns". **error**: an exception, see
  below. **dense**: by arrays of size n by n.
- **no API**: nothing among its public names does this.
- **warns**, **raises**, **silent**: how a solve that cannot succeed ends by default; a residual that is told on request
  is not told by default. **NaN**: silent too, but what comes out is not a number.
- A number is the true relative residual of the solution, a word beside it what was reported.
- Factorisations are counted by the calls of SuperLU, and in compiled programs by those of KLU and LAPACK.

"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--short", action="store_true", help="print the rows for the README from the page, run nothing")
    if parser.parse_args().short:
        columns, rows = read(PAGE.read_text())
        print(table(columns, {title: rows[title] for title in SHORT}))
        return
    logging.getLogger("jax").setLevel(logging.CRITICAL)  # exceptions that are expected
    libraries = [library() for library in (*OURS, *PEERS)]
    rows, errors = run(libraries)
    PAGE.parent.mkdir(parents=True, exist_ok=True)
    PAGE.write_text(page(libraries, rows, errors))


def run(libraries: Sequence[Library]) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    """The cells of each row, and of each error the places where it was seen."""
    rows, errors = {}, {}
    for title in ROWS:
        rows[title] = []
        for library in libraries:
            cell, error = see(title, library)
            rows[title].append(cell)
            if error:
                errors.setdefault(f"{library.name}: {error}", []).append(title)
        print(f"{title}: {', '.join(rows[title])}", flush=True)
    return rows, errors


def see(title: str, library: Library) -> tuple[str, str]:
    """What the experiment saw, and the text of an exception."""
    try:
        with warned() as caught:
            cell = ROWS[title](library)
        return f"{cell}, warns" if caught and cell.startswith("off by") else cell, ""
    except NoAPIError:
        return "no API", ""
    except AssertionError:
        raise  # of the experiment itself
    except Exception as error:
        return "error", f"`{type(error).__name__}: {str(error).splitlines()[0][:100]}`"


def page(libraries: Iterable[Library], rows: Mapping[str, list[str]], errors: Mapping[str, list[str]]) -> str:
    called = "\n".join(f"- {library}: {library.called}." for library in libraries)
    seen = "\n".join(f"- {error} ({', '.join(titles)})" for error, titles in errors.items())
    return (
        f"{HEAD}{table([str(library) for library in libraries], rows)}\n\n"
        f"How each is called:\n\n{called}\n\nWhat the errors say:\n\n{seen}\n"
    )


def table(columns: Sequence[str], rows: Mapping[str, Sequence[str]]) -> str:
    lines = [["", *columns], ["---"] * (1 + len(columns)), *([title, *cells] for title, cells in rows.items())]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def read(text: str) -> tuple[list[str], dict[str, list[str]]]:
    """The columns and the rows of a page."""
    lines = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("|")]
    return lines[0], {title: cells for title, *cells in lines[2:]}


if __name__ == "__main__":
    main()
