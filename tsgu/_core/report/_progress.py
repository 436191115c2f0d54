"""A line on stderr for the solve that is under way, where ``record(progress=True)`` asks for it."""

import math
import sys
import threading
import time
from importlib.util import find_spec
from typing import Any

_PATIENCE = 1.0
"""Seconds before the first sign of a solve."""

_PAUSE = 0.1
"""Seconds between two signs."""

EVERY = 100
"""Steps of a compiled loop between two calls of the host."""


class Line:
    """One solve after the other, by tqdm where that is installed."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._label = ""
        self._began = self._shown = 0.0
        self._bar: Any = None
        self._width = 0

    def step(self, method: str, transposed: bool, steps: int, residual: float, target: float) -> None:
        """Take note of a step of a solve; residuals are relative."""
        now = time.monotonic()
        with self._lock:
            label = f"{method}, {'adjoint' if transposed else 'forward'}"
            if label != self._label:
                self._clear()
                self._label, self._began = label, now
            if now - self._began >= _PATIENCE and now - self._shown >= _PAUSE:
                self._shown = now
                self._show(f"{steps} steps, residual {residual:.1e}, target {target:.1e}", _share(residual, target))

    def end(self) -> None:
        """The solve is over: the line goes away."""
        with self._lock:
            self._clear()

    def _show(self, text: str, share: float) -> None:
        if self._bar is None and not self._width:
            self._bar = _bar(self._label)
        if self._bar is not None:
            self._bar.n = round(100 * share)
            self._bar.set_description_str(f"{self._label}: {text}")
            return
        line = f"{self._label}: {text} [{time.monotonic() - self._began:.0f} s]"
        sys.stderr.write("\r" + line.ljust(self._width))
        sys.stderr.flush()
        self._width = len(line)

    def _clear(self) -> None:
        if self._bar is not None:
            self._bar.close()
        elif self._width:
            sys.stderr.write("\r" + " " * self._width + "\r")
            sys.stderr.flush()
        self._label, self._bar, self._width = "", None, 0


def _bar(label: str) -> Any:
    """One of tqdm; None, for a plain line, where it is not installed."""
    if find_spec("tqdm") is None:
        return None
    from tqdm import tqdm

    bar = tqdm(total=100, desc=label, bar_format="{desc} |{bar:20}| {elapsed}", leave=False, file=sys.stderr)
    bar.start_t -= _PATIENCE
    return bar


def _share(residual: float, target: float) -> float:
    """How many of the digits wanted are there, from 0 to 1."""
    if not 0 < residual < 1 or not 0 < target < 1:
        return 0.0
    return min(1.0, math.log(residual) / math.log(target))
