"""Run tsgu and tsgu_jax beside the libraries that do the same: ``python tests/benchmarks/compare.py``.

Everybody solves A x = b and differentiates <w, x> with respect to the stored values of A and to b, to the same true
residual, each contestant in a process of its own, in turn, round after round. What is measured, and how, stands at the
head of ``table.md``, which is written beside ``results.csv`` and ``time.svg``. The libraries come with ``tsgu[bench]``.
"""

import argparse
import os
import platform
import sys
import time
from dataclasses import replace
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

# Two threads of a busy BLAS can be slower than one, and would disturb whoever is being timed. Set before NumPy loads.
os.environ["OMP_NUM_THREADS"] = "1"

import psutil

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from tests.benchmarks.comparison import figure, goals, table  # noqa: E402 - found by the path above
from tests.benchmarks.comparison.problems import recipes  # noqa: E402
from tests.benchmarks.comparison.schedule import COMPILING, Budget, Entry, Schedule  # noqa: E402
from tests.benchmarks.peers import CONTESTANTS, DISTRIBUTIONS, contestants  # noqa: E402

SHARE_OF_MEMORY = 0.7
FULL = Budget(call=8, rounds=11, seconds=1)
QUICK = Budget(call=3, rounds=5, seconds=0.5, steps=False)


def main() -> None:
    arguments = parse()
    memory = SHARE_OF_MEMORY * psutil.virtual_memory().available
    budget = replace(QUICK if arguments.quick else FULL, memory=memory)
    if arguments.limit is not None:
        budget = replace(budget, call=arguments.limit)
    chosen = [recipe for recipe in recipes(arguments.quick) if not arguments.only or arguments.only in recipe.name]
    if not chosen:
        names = ", ".join(recipe.name for recipe in recipes(arguments.quick))
        sys.exit(f"no case is called {arguments.only!r}; there are: {names}")
    schedule = Schedule(budget, lambda text: print(text, flush=True))
    arguments.output.mkdir(parents=True, exist_ok=True)
    entries, began = [], time.monotonic()
    try:
        for recipe in chosen:
            print(f"{recipe.name} ({(time.monotonic() - began) / 60:.1f} minutes)", flush=True)
            entries += schedule.run(recipe, contestants(arguments.libraries))
            write(arguments.output, entries, budget)  # so that a run that is interrupted leaves what it has
    finally:
        schedule.end()
    print(f"\n{goals.summary(entries)}\n")
    print(f"{(time.monotonic() - began) / 60:.1f} minutes, written to {arguments.output}")


def write(folder: Path, entries: list[Entry], budget: Budget) -> None:
    table.write_csv(folder / "results.csv", entries)
    (folder / "table.md").write_text(table.markdown(entries, surroundings(), budget))
    figure.draw(folder / "time.svg", entries)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="smaller cases and fewer rounds, under 3 minutes")
    parser.add_argument("--only", metavar="CASE", help="cases whose name contains this")
    known = list(dict.fromkeys(contestant.library for contestant in CONTESTANTS))
    parser.add_argument("--libraries", nargs="+", choices=known, help="these libraries alone")
    limit = (
        f"seconds after which a call is broken off: {FULL.call}, quick {QUICK.call}; "
        f"the first one may compile for {COMPILING:g} more"
    )
    parser.add_argument("--limit", type=float, metavar="SECONDS", help=limit)
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "performance", metavar="DIR")
    return parser.parse_args()


def surroundings() -> dict[str, str]:
    """The machine, the day and the versions."""
    libraries = dict.fromkeys(["python", "numpy", "torch", "jaxlib", "pyamg", "pypardiso"])
    libraries |= dict.fromkeys(contestant.library for contestant in CONTESTANTS)
    return {
        "machine": f"{processor()}, {psutil.cpu_count(logical=False) or os.cpu_count()} cores, "
        f"{psutil.virtual_memory().total / 2**30:.0f} GiB",
        "date": date.today().isoformat(),
        "versions": ", ".join(f"{name} {_version(name)}" for name in libraries if name != "tsgu_jax"),
    }


def processor() -> str:
    """The model of the CPU where the system tells, else its architecture."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        found = [line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if line[:10] == "model name"]
        if found:
            return found[-1]
    return platform.processor() or platform.machine()


def _version(name: str) -> str:
    if name == "python":
        return platform.python_version()
    try:
        return version(DISTRIBUTIONS.get(name, name))
    except PackageNotFoundError:
        return "(not installed)"


if __name__ == "__main__":
    main()
