"""The parent's side of a contestant's process: ask, wait within limits of time and memory, and end it if need be."""

import contextlib
import json
import os
import re
import selectors
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).parents[3]
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "JAX_ENABLE_X64": "1", "JAX_PLATFORMS": "cpu", "PYTHONWARNINGS": "ignore"}


class Failed(Exception):  # noqa: N818 - a result, not an error of the benchmark
    """What became of a contestant that has no numbers."""


class Process:
    def __init__(self, library: str, method: str, memory: float) -> None:
        self.memory = memory
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.benchmarks.comparison.worker", library, method],
            cwd=ROOT,
            env=os.environ | ENVIRONMENT | {"PYTHONPATH": str(ROOT)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            bufsize=1,
        )

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    def send(self, do: str, **arguments: Any) -> None:
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(json.dumps({"do": do, **arguments}) + "\n")
        except BrokenPipeError:  # the answer, or its absence, tells
            return

    def receive(self, seconds: float) -> dict[str, Any]:
        """The answer; :class:`Failed` if there is none in time, or it tells of an error."""
        assert self.process.stdout is not None
        deadline = time.monotonic() + seconds
        with selectors.DefaultSelector() as selector:
            selector.register(self.process.stdout, selectors.EVENT_READ)
            while not selector.select(0.2):
                if time.monotonic() > deadline:
                    self.end()
                    raise Failed(f"over {seconds:.0f} s")
                if self.alive and psutil.Process(self.process.pid).memory_info().rss > self.memory:
                    self.end()
                    raise Failed(f"out of memory: over {self.memory / 1e9:.0f} GB")
        line = self.process.stdout.readline()
        if not line:
            raise Failed(f"ended by signal or exit code {self.process.wait()}")
        answer = json.loads(line)
        if "error" in answer:
            raise Failed(_wording(answer["error"], answer["text"]))
        return answer

    def ask(self, do: str, seconds: float, **arguments: Any) -> dict[str, Any]:
        self.send(do, **arguments)
        return self.receive(seconds)

    def end(self) -> None:
        self.process.kill()
        with contextlib.suppress(BrokenPipeError):
            self.process.communicate()  # waits, and closes the pipes


def _wording(error: str, text: str) -> str:
    if error == "MemoryError":
        return "out of memory"
    # A callback of JAX hands on a traceback as text, whose last error is the one that tells something.
    raised = re.findall(r"^\s*(?:\w+\.)*(\w*Error): *(.+)$", text, re.MULTILINE)
    if "Traceback" in text and raised:
        error, text = raised[-1]
    if error in ("ImportError", "ModuleNotFoundError"):
        return f"not installed: {_start(text)}"
    return f"failed: {error.strip('_')}: {_start(text)}"


def _start(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= 120 else text[:117] + "..."
