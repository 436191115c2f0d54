"""Memory that factors would take, beside what is free: to be known before the work begins.

A library that finds no memory half-way may end the process, as one written in Rust does, or have it ended by the
system, which promises more memory than there is.
"""

import math
from pathlib import Path

from tsgu._core.pattern._symbolic import Symbolic
from tsgu._core.report import _matrix_words

_NEGLIGIBLE = 1 << 26
"""Bytes below which nobody asks what is free."""

_DOUBT = 2
"""An estimate from the width of the graph may be too high by this factor, and refuses nothing that may succeed."""

_COUNTABLE = (1 << 31) - 1
"""Entries of factors that SuperLU, as SciPy builds it, can count."""

_COUNTED = {
    Path("/sys/fs/cgroup/memory.max"): Path("/sys/fs/cgroup/memory.current"),
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"): Path("/sys/fs/cgroup/memory/memory.usage_in_bytes"),
}
"""Files with the limit of a container, and with what it uses, in both versions that Linux has."""


def available() -> int | None:
    """Bytes that are free, in the machine and in the container; None where the system does not say, as Linux does."""
    free = []
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    free += [1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")]
    for limit, used in _COUNTED.items():
        if limit.is_file() and used.is_file() and (most := limit.read_text().strip()).isdigit():
            free.append(int(most) - int(used.read_text()))
    return max(0, min(free)) if free else None


def check(library: str, needed: int, n: int) -> None:
    """Refuse factors that there is no memory for.

    Raises
    ------
    MemoryError
        If ``needed`` bytes are more than what is free.
    """
    if needed <= _NEGLIGIBLE:
        return
    free = available()
    if free is not None and needed > free:
        raise MemoryError(_matrix_words.too_large(library, needed, free, n))


def fill(symbolic: Symbolic) -> float:
    """Entries of the factors: those of separators in three dimensions, n log n in two, and of a graph without small
    separators those of a dense core, as of three random entries in a row.

    Of the grids and random matrices that were looked at it is off by a factor of 0.3 to 2.6.
    """
    n, width = symbolic.shape[0], symbolic.width
    return symbolic.nnz + 4 * n * math.log2(1 + width) + min(60 * width**2, n**2 / 6)


def check_estimate(library: str, symbolic: Symbolic, entry: int) -> None:
    """The same by an estimate from the pattern alone, where no better one is at hand; ``entry`` in bytes.

    Raises
    ------
    MemoryError
        If half of what is expected is more than what is free, or than what SuperLU can count.
    """
    n = symbolic.shape[0]
    if entry * (symbolic.nnz + n**2 / 6) / _DOUBT <= _NEGLIGIBLE:  # there is no need for the width
        return
    entries = fill(symbolic) / _DOUBT
    if max(entries, symbolic.nnz) > _COUNTABLE:
        raise MemoryError(_matrix_words.too_many(library, entries, n))
    check(library, int(entry * entries), n)
