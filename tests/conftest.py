"""Test configuration: one thread, set before any library loads, and real matrices that live outside the repository."""

import itertools
import os
import sys
from importlib.metadata import PackageNotFoundError, version

# Two OpenMP threads on two busy cores can be fifty times slower than one. A setting of the tests, never of the library.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Most of the time of the suite goes into XLA compiling; it takes a quarter as long without optimisation, and without
# MLIR for fusions. Programs as users have them are for benchmarks to measure and for --whole to test. XLA ends a
# process with a flag that it does not know, and flags come and go with its releases.
try:
    _emitters = "--xla_cpu_use_fusion_emitters=false" if version("jaxlib").startswith("0.10.") else ""
except PackageNotFoundError:
    _emitters = ""
if {"--benchmark-only", "--whole"}.isdisjoint(sys.argv):
    os.environ.setdefault("XLA_FLAGS", f"--xla_backend_optimization_level=0 {_emitters}")
else:
    os.environ.setdefault("XLA_FLAGS", "")  # for the workers, who do not see the command line

from collections.abc import Callable
from pathlib import Path

import pytest

DATA = Path(os.environ.get("TSGU_TEST_DATA", Path(__file__).parents[2] / "shared" / "data"))
NO_DATA = "real matrix not found; set TSGU_TEST_DATA to the folder with the Matrix Market files"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--whole", action="store_true", help="for JAX every system and every feature, some 20 minutes")
    parser.addoption("--site", metavar="PATH", help="read the documentation that was built there, in tests/site")


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Two processes, since most of the time goes into JAX compiling; one for benchmarks, and for a few tests."""
    return 0 if config.getoption("benchmark_only") or config.args_source is config.ArgsSource.ARGS else 2


LEFT_OUT = ("needs pypardiso", "needs rslab")
"""Reasons to skip where an extra is missing that ``tsgu[all]`` does not bring."""

QUICK_IN_JAX = {
    ("test_gradients_equal_the_dense_ones_at_every_stored_entry", "linear_cg"),
    ("test_gradients_equal_the_dense_ones_at_every_stored_entry", "direct"),
    ("test_a_failed_adjoint_is_reported_as_the_adjoint", "linear_cg"),
}
"""Cells of the contract that the fast lane looks at in JAX, where each compiles for seconds: a test and its method."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Marks: ``quick`` for the fast lane, ``extra`` for what skips without the extras that are left out of ``all``.

    What is marked ``whole`` is left out without ``--whole``.
    """
    if not config.getoption("whole"):
        dropped = [item for item in items if item.get_closest_marker("whole")]
        config.hook.pytest_deselected(items=dropped)
        items[:] = [item for item in items if not item.get_closest_marker("whole")]
    for item in items:
        if _is_quick(item):
            item.add_marker(pytest.mark.quick)
        if any(mark.kwargs.get("reason") in LEFT_OUT for mark in item.iter_markers("skipif")):
            item.add_marker(pytest.mark.extra)


def _is_quick(item: pytest.Item) -> bool:
    folder = item.path.relative_to(Path(__file__).parent).parts[0] if Path(__file__).parent in item.path.parents else ""
    if folder == "core":
        return True
    if folder != "contract":
        return False
    chosen = getattr(item, "callspec", None)
    params = {} if chosen is None else chosen.params
    if params.get("package") != "jax":
        return True
    return (getattr(item, "originalname", None), params.get("method")) in QUICK_IN_JAX


_run = itertools.count(1)


def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """Compiled programs are forgotten after each file and each hundred tests.

    Those of all files would come to gigabytes, and XLA ends in a segmentation fault where a process has more than the
    65 530 pieces of memory that Linux grants it: those of two hundred of these tests.
    """
    last_of_file = nextitem is None or nextitem.path != item.path
    if "jax" in sys.modules and (last_of_file or next(_run) % 100 == 0):
        sys.modules["jax"].clear_caches()


@pytest.fixture
def real_matrix() -> Callable[[str], Path]:
    """The path of a real matrix, or a skip where the folder is absent."""

    def find(name: str) -> Path:
        path = DATA / name
        if not path.is_file():
            pytest.skip(NO_DATA)
        return path

    return find


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say how much was not tested for want of the real matrices."""
    skipped = [report for report in terminalreporter.stats.get("skipped", []) if NO_DATA in str(report.longrepr)]
    found = "found" if DATA.is_dir() else "absent"
    terminalreporter.write_line(f"real matrices: {DATA} {found}, {len(skipped)} tests skipped without them")
