"""What the tests of the command line share: the process, the table it prints, and matrices on disk."""

import os
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import scipy.io
import scipy.sparse as sp

from tsgu._cli._arguments import METHODS

ROOT = Path(__file__).resolve().parents[2]
COLUMNS = ("method", "n", "nnz", "iterations", "forward", "adjoint", "error", "allowed", "seconds", "check")

DEADLINE = 300
"""Seconds after which a process hangs; it needs one to ten on an idle machine."""


def rows(out):
    """The lines of the table. ``a + b`` iterations become a pair of numbers."""
    both = any(line.startswith("method") and "backend" in line for line in out.splitlines())
    columns = (*COLUMNS[:-1], "backend", "difference", COLUMNS[-1]) if both else COLUMNS
    lines = [line.replace(" + ", "+") for line in out.splitlines() if line.startswith((*METHODS, "auto"))]
    parsed = [dict(zip(columns, line.split(maxsplit=len(columns) - 1), strict=True)) for line in lines]
    for row in parsed:
        row["iterations"] = None if row["iterations"] == "-" else tuple(map(int, row["iterations"].split("+")))
        row.update({name: float(row[name]) for name in COLUMNS[4:9]})
    return parsed


@contextmanager
def process(*argv, stdout=subprocess.PIPE, interpreter=("-m", "tsgu")):
    """The command as a process of its own, ended with the block. ``interpreter`` is what Python is told to run."""
    with subprocess.Popen(
        [sys.executable, *interpreter, *map(str, argv)],
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
    ) as command:
        try:
            yield command
        finally:
            command.kill()  # nothing happens if it has ended


def nonsymmetric(n=30, seed=0, field="real"):
    """A well-conditioned sparse matrix whose transpose and conjugate are quite other matrices."""
    random = np.random.default_rng(seed)
    A = sp.random_array((n, n), density=0.15, rng=random, format="csr") + 3 * sp.eye_array(n, format="csr")
    if field == "complex":
        A.data = A.data * np.exp(2j * np.pi * random.random(A.nnz))
    return A


def write(path, matrix):
    scipy.io.mmwrite(path, matrix, symmetry="general")
    return path
