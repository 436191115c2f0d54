"""A function of a test module in a process of its own: what hangs or aborts there is a failure here."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

_PROGRAM = """
import faulthandler, importlib, sys
name, function, seconds, *args = sys.argv[1:]
faulthandler.dump_traceback_later(float(seconds), exit=True)
import jax
jax.config.update("jax_enable_x64", True)
getattr(importlib.import_module(name), function)(*args)
"""


def run(function: Callable[..., None], *args: str, devices: int = 1, seconds: float = 300.0) -> str:
    """What it has printed; the test fails where the process does, or is not done after so many seconds."""
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={devices}"
    command = [sys.executable, "-c", _PROGRAM, function.__module__, function.__name__, str(seconds), *args]
    environment = {**os.environ, "XLA_FLAGS": flags, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=2 * seconds, check=False
    )
    if done.returncode != 0:
        pytest.fail(f"{function.__name__}{args} ended with {done.returncode}:\n{done.stderr[-4000:]}")
    return done.stdout
