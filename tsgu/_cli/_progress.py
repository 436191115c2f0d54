"""A line on the terminal while something takes its time."""

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

PATIENCE = 1.0
"""Seconds before the first sign."""


@contextmanager
def progress(doing: str) -> Iterator[None]:
    """Say on stderr what is going on and for how long, once it has taken over a second; nothing if not a terminal."""
    if not sys.stderr.isatty():
        yield
        return
    done = threading.Event()
    thread = threading.Thread(target=_tell, args=(doing, done), daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def _tell(doing: str, done: threading.Event) -> None:
    began, line = time.monotonic(), ""
    while not done.wait(PATIENCE):
        line = f"{doing} ... {time.monotonic() - began:.0f} s"
        sys.stderr.write(f"\r{line}")
        sys.stderr.flush()
    if line:
        sys.stderr.write(f"\r{' ' * len(line)}\r")
        sys.stderr.flush()
