"""Benchmarks run only when asked for, interleaved with what they are compared to, and end in a table of ratios."""

import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest

ROWS: list[tuple[str, ...]] = []


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    return None if config.getoption("benchmark_only") else True


@pytest.fixture(autouse=True)
def one_thread():
    """Two threads on two busy cores can be fifty times slower than one."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture
def compare(benchmark, request):
    """Time functions in turn, round after round, and tell what the first takes relative to others: median, quartiles.

    ``per`` divides the times of a function, by its steps for example. ``goals`` are ratios to stay below or, if asked,
    milliseconds that the first may take more than the other.
    """

    def run(
        functions: Mapping[str, Callable[[], object]],
        rounds: int,
        goals: Mapping[str, float],
        per: Mapping[str, float] | None = None,
        milliseconds_above: bool = False,
    ) -> None:
        times = {name: np.empty(rounds) for name in functions}
        for function in functions.values():
            function()
        for index in range(rounds):
            for name, function in functions.items():
                began = time.perf_counter()
                function()
                times[name][index] = 1e3 * (time.perf_counter() - began) / (per or {}).get(name, 1)
        first = next(iter(functions))
        for name, goal in goals.items():
            above = times[first] - times[name] if milliseconds_above else times[first] / times[name]
            low, middle, high = np.quantile(above, [0.25, 0.5, 0.75])
            unit = " ms more" if milliseconds_above else ""
            mine, other = (np.median(times[which]) for which in (first, name))
            ROWS.append(
                (
                    request.node.name,
                    f"{first} / {name}",
                    f"{middle:.2f}{unit} ({low:.2f} to {high:.2f})",
                    f"{goal:.2f}",
                    f"{mine:.4g} / {other:.4g} ms",
                )
            )
            benchmark.extra_info[f"{first} to {name}"] = float(middle)
        benchmark.pedantic(functions[first], rounds=1)

    return run


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if not ROWS:
        return
    rows = [("case", "ratio of", "median (quartiles)", "goal", "medians"), *ROWS]
    widths = [max(len(row[i]) for row in rows) for i in range(5)]
    terminalreporter.section("ratios, measured in turn")
    for row in rows:
        terminalreporter.write_line("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)))
