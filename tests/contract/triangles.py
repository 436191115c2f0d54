"""Triangular systems for the contract suite, and their dense truth in NumPy and torch.linalg."""

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch

from tests.contract.systems import System


@dataclass(frozen=True)
class Triangle:
    """A triangular matrix as a user stores it, and the arguments that say what it is."""

    system: System
    upper: bool
    unit: bool
    transpose: bool

    @property
    def arguments(self) -> dict[str, bool]:
        return {"upper": self.upper, "unitriangular": self.unit, "transpose": self.transpose}

    @cached_property
    def operator(self) -> np.ndarray:
        """The dense matrix that is solved with."""
        dense = self.system.dense + (np.eye(self.system.n) if self.unit else 0)
        return dense.T if self.transpose else dense

    @property
    def condition(self) -> float:
        return float(np.linalg.cond(self.operator)) if self.system.n else 1.0

    def solution(self, b: np.ndarray) -> np.ndarray:
        return np.linalg.solve(self.operator, b)

    def _solve(self, values: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        place = torch.from_numpy(self.system.row), torch.from_numpy(self.system.col)
        n = self.system.n
        dense = torch.zeros(n, n, dtype=values.dtype).index_put(place, values, accumulate=True)
        columns = b.unsqueeze(1) if b.dim() == 1 else b
        matrix = dense.T if self.transpose else dense
        x = torch.linalg.solve_triangular(matrix, columns, upper=self.upper != self.transpose, unitriangular=self.unit)
        return x.squeeze(1) if b.dim() == 1 else x

    def gradients(self, b: np.ndarray, w: np.ndarray) -> list[np.ndarray]:
        """Gradients of Re <w, x> with respect to each stored value, and to b."""
        values, rhs = torch.tensor(self.system.values, requires_grad=True), torch.tensor(b, requires_grad=True)
        grads = torch.autograd.grad((torch.tensor(w).conj() * self._solve(values, rhs)).sum().real, (values, rhs))
        return [grad.numpy() for grad in grads]

    def hessian_products(self, b: np.ndarray, w: np.ndarray, direction: tuple[np.ndarray, ...]) -> list[np.ndarray]:
        """Second derivatives of Re <w, x x> along a direction in (values, b)."""
        leaves = torch.tensor(self.system.values, requires_grad=True), torch.tensor(b, requires_grad=True)
        x = self._solve(*leaves)
        grads = torch.autograd.grad((torch.tensor(w).conj() * x * x).sum().real, leaves, create_graph=True)
        along = sum((torch.tensor(d).conj() * g).sum().real for d, g in zip(direction, grads, strict=True))
        return [second.numpy() for second in torch.autograd.grad(along, leaves)]

    def tangent(self, b: np.ndarray, direction: tuple[np.ndarray, ...]) -> np.ndarray:
        """dx = T^-1 (db - dT x), written out."""
        change = np.zeros_like(self.system.dense)
        np.add.at(change, (self.system.row, self.system.col), direction[0])
        change = change.T if self.transpose else change
        return np.linalg.solve(self.operator, direction[1] - change @ self.solution(b))

    def __repr__(self) -> str:
        return self.system.name


def triangle(
    upper: bool, unit: bool, transpose: bool, n: int = 9, complex_: bool = True, shuffle: bool = False
) -> Triangle:
    """A sparse triangle with empty rows off the diagonal and explicit zeros; shuffled: with repeats, in any order."""
    rng = np.random.default_rng(13)
    dense = rng.standard_normal((n, n)) + (1j * rng.standard_normal((n, n)) if complex_ else 0)
    stored = (rng.random((n, n)) < 0.4) & (np.tri(n, k=-1, dtype=bool).T if upper else np.tri(n, k=-1, dtype=bool))
    dense[rng.random((n, n)) < 0.1] = 0
    if not unit:
        np.fill_diagonal(stored, True)
        np.fill_diagonal(dense, 2 + rng.random(n) + (1j * rng.random(n) if complex_ else 0))
    row, col = np.nonzero(stored)
    values = dense[row, col]
    layouts = ("coo", "csr", "csr32", "values")
    if shuffle:
        part = rng.random(row.size)
        order = rng.permutation(2 * row.size)
        row, col = np.tile(row, 2)[order], np.tile(col, 2)[order]
        values = np.concatenate([values * part, values * (1 - part)])[order]
        layouts = ("coo", "values")
    name = " ".join(
        ["upper" if upper else "lower"]
        + ["unit"] * unit
        + ["transposed"] * transpose
        + ["complex"] * complex_
        + ["unsorted repeats"] * shuffle
        + [f"of {n}"] * (n != 9)
    )
    return Triangle(System(name, row, col, values, n, layouts=layouts), upper, unit, transpose)


BOTH = (False, True)
ALL = [triangle(u, d, t) for u in BOTH for d in BOTH for t in BOTH]
TELLING = [
    triangle(False, False, True),
    triangle(True, True, False),
    triangle(True, False, False, complex_=False, shuffle=True),
    triangle(False, False, False, n=1),
]
NOTHING = triangle(False, False, False, n=0, complex_=False)


def scaled(given: Triangle, factor: float) -> Triangle:
    """The same with other values."""
    return replace(given, system=replace(given.system, values=given.system.values * factor))
