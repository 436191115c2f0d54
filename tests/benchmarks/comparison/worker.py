"""The process of one contestant: reads one JSON object a line, answers with one.

``start``: load a case, in the library's own formats. ``solve``: once, timed, with the values scaled by a number that
differs in every round, as if they had been trained. ``steps``: iterations, in a call of its own where counting costs.
``forget``: drop the case.
"""

import ctypes
import gc
import importlib
import json
import os
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from tests.benchmarks.comparison.problems import Case, grid


class Memory:
    """The resident memory of this process in bytes, and its peak, which Linux lets one reset; elsewhere None."""

    def __init__(self) -> None:
        self.baseline = 0

    def settle(self) -> None:
        """What is in use now does not count."""
        self.trim()
        self.baseline = self._read("VmRSS") or 0

    @staticmethod
    def trim() -> None:
        """Give freed memory back: still resident, it would be used again unseen, or count where it is not used."""
        gc.collect()
        with suppress(OSError, AttributeError):
            ctypes.CDLL("libc.so.6").malloc_trim(0)

    def reset_peak(self) -> None:
        with suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")

    def peak(self) -> int | None:
        peak = self._read("VmHWM")
        return None if peak is None else max(peak - self.baseline, 0)

    @staticmethod
    def _read(field: str) -> int | None:
        try:
            status = Path("/proc/self/status").read_text()
        except OSError:
            return None
        return 1024 * int(status.split(field + ":")[1].split()[0])


class Worker:
    def __init__(self, library: str, method: str) -> None:
        self.method = method
        self.peer = importlib.import_module(f"tests.benchmarks.peers.{library}")
        self.memory = Memory()
        self.warm_up()

    def warm_up(self) -> None:
        """A small system, after which what is imported or started on first use no longer counts as memory of a call."""
        side = np.full(64, 0.125)
        run = self.peer.start(self.method, Case("", "", grid(8, 2), side, side, definite=True), 1e-8)
        run.solve(run.values(grid(8, 2).data))

    def start(self, case: str, rtol: float) -> dict[str, Any]:
        self.case = Case.load(Path(case))
        self.run = self.peer.start(self.method, self.case, rtol)
        self.memory.settle()
        self.first = True
        return {}

    def solve(self, scale: float, out: str) -> dict[str, Any]:
        values = self.run.values(scale * self.case.A.data)
        gc.collect()
        self.memory.reset_peak()
        began = time.perf_counter()
        outcome = self.run.solve(values)
        seconds = time.perf_counter() - began
        peak = self.memory.peak()
        if self.first:  # which may have compiled
            self.memory.trim()
            self.first = False
        np.savez(out, x=outcome.x, lam=outcome.grad_b, grad=outcome.grad_values)
        return {"seconds": seconds, "peak": peak}

    def steps(self) -> dict[str, Any]:
        return {"steps": self.run.steps(self.run.values(self.case.A.data)) if self.run.steps else None}

    def forget(self) -> dict[str, Any]:
        del self.run, self.case
        if "jax" in sys.modules:
            sys.modules["jax"].clear_caches()
        return {}


def main() -> None:
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what a library prints does not mix with the answers
    worker = None
    for line in sys.stdin:
        request = json.loads(line)
        try:
            if worker is None:
                worker = Worker(*sys.argv[1:])
            answer = getattr(worker, request.pop("do"))(**request)
        except Exception as error:  # every failure of a library is a result, to be shown
            answer = {"error": type(error).__name__, "text": str(error)}
        answers.write(json.dumps(answer) + "\n")


if __name__ == "__main__":
    main()
