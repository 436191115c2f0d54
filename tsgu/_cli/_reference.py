r"""The derivative by finite differences, and how far a computed gradient may be from it.

For A x = b and the loss L = Re(w^H x), the matrix and the right-hand side move together, A + h E and b + h e, along a
fixed pseudo-random direction. The tangent dx solves A dx = e - E x, and L' = Re(w^H dx).

**Step.** x(h) = x + h dx + h^2 x2 + h^3 x3 + ..., with A x_{k+1} = -E x_k. The central difference is wrong by
h^2 Re(w^H x3) from truncation, and by R / h + R' from rounding, where R = u |lambda|^T (|A| |x| + |b|) bounds what
backward errors of relative size u in A and b do to L, and R' = u |lambda|^T (|A| |dx| + |e|) what they do to its
change. The sum is smallest at h = (R / 2 |w^H x3|)^(1/3); truncation below R' gains nothing; and h is kept below
0.01 / rho, rho the ratio of successive terms, for the series to be dominated by the terms looked at. All of these come
from the same factors of A, so the step fits the conditioning of A instead of being a guess.

**What a gradient may be off by.** A method returns x and lambda with residuals r = b - A x and s = w - A^H lambda, and
gradients lambda and -lambda x^H. Then, exactly,

    Re(lambda^H e - lambda^H E x) - L' = Re(y^H r - s^H dx),        A^H y = E^H lambda,

so |y^H r| + |s^H dx| is the error that the residuals explain: rtol times the conditioning of this derivative. With the
two errors of the difference, and rounding in the residuals and in the products of the gradient, that is all that is
allowed. The residuals themselves are held to rtol apart from this.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from tsgu._cli._backend import Solution
from tsgu._cli._factored import Factored
from tsgu._cli._problem import Problem, gaussian
from tsgu._core.methods._options import ATTAINABLE

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Verdict:
    """What the reference says of a solution and its gradient; relative numbers."""

    forward_residual: float
    adjoint_residual: float
    forward_solved: bool
    adjoint_solved: bool
    gradient_error: float
    allowed: float


class Reference:
    """Everything that is computed once per problem.

    Parameters
    ----------
    problem : Problem
        Taken to double precision as it is, single precision included.

    Raises
    ------
    numpy.linalg.LinAlgError
        If A is exactly singular.
    """

    def __init__(self, problem: Problem) -> None:
        double = np.result_type(problem.A.dtype, np.float64)
        A, self.b, self.w = problem.A.astype(double), problem.b.astype(double), problem.w.astype(double)
        self.rtol, self.eps = problem.rtol, float(np.finfo(problem.A.dtype).eps)
        self._factored = Factored(A)
        x, adjoint = self._solve(self.b), self._solve(self.w, adjoint=True)
        self.condition = max(
            self._factored.condition(x, self.b), self._factored.condition(adjoint, self.w, adjoint=True)
        )

        random = np.random.default_rng(1)
        self.E = A.copy()
        magnitude = abs(A.data)
        least = magnitude[magnitude > 0].min()  # so that stored zeros, which have a gradient too, move as well
        self.E.data = gaussian(random, A.data.shape, double) * np.maximum(magnitude, least)
        moved = self.E @ x
        norm = max(_norm(moved), _norm(self.b)) or 1.0
        self.e = gaussian(random, self.b.shape, double) * (norm / np.sqrt(self.b.size))  # the two count alike

        self.dx = self._solve(self.e - moved)
        self._difference(x, adjoint)

    def _difference(self, x: Array, adjoint: Array) -> None:
        x2 = self._solve(-(self.E @ self.dx))
        x3 = self._solve(-(self.E @ x2))
        sizes = [_norm(term) for term in (self.dx, x2, x3)]
        rho = max((after / before for before, after in pairwise(sizes) if before), default=0.0)
        cubic = abs(np.vdot(self.w, x3))
        unit = self._factored.unit
        rounding = unit * float(np.sum(abs(adjoint) * self._factored.size(x, self.b)))
        floor = unit * float(np.sum(abs(adjoint) * self._factored.size(self.dx, self.e)))
        h = max((rounding / (2 * cubic)) ** (1 / 3), (floor / cubic) ** (1 / 2)) if cubic else 1.0
        h = min(h, 0.01 / rho if rho else 1.0)
        ahead, behind = self._loss(h), self._loss(-h)
        self.derivative = (ahead - behind) / (2 * h)
        rest = (h * rho) ** 2 * _norm(self.w) * sizes[2]
        self._difference_error = h**2 * (cubic + rest) + rounding / h + floor

    def _loss(self, h: float) -> float:
        """Re(w^H x) at (A + h E, b + h e), from factors of that matrix."""
        moved = Factored(self._factored.A + h * self.E)
        x = moved.solve(self.b + h * self.e)
        self._factored.unit = max(self._factored.unit, moved.unit)
        return float(np.sum(self.w.conj() * x).real)

    def _solve(self, b: Array, adjoint: bool = False) -> Array:
        return self._factored.solve(b, adjoint)

    def judge(self, solution: Solution) -> Verdict:
        """Residuals afresh, and the gradient against the difference. What is not finite fails."""
        with np.errstate(invalid="ignore", over="ignore"):
            return self._judge(solution)

    def _judge(self, solution: Solution) -> Verdict:
        x, lam, gradient = (array.astype(self.b.dtype) for array in solution)
        r, s = self.b - self._factored.A @ x, self.w - self._factored.AH @ lam
        size_r, size_s = self._factored.size(x, self.b), self._factored.size(lam, self.w, adjoint=True)
        derivative = float(np.sum(gradient.conj() * self.E.data).real + np.sum(lam.conj() * self.e).real)

        y = self._solve(self.E.conj().T @ lam, adjoint=True)
        explained = abs(np.vdot(y, r)) + abs(np.vdot(s, self.dx))
        rounding = self._factored.unit * float(np.sum(abs(y) * size_r) + np.sum(abs(self.dx) * size_s))
        columns = self.b.size // self.b.shape[0]
        products = float(np.sum(abs(lam) * (abs(self.E) @ abs(x))) + np.sum(abs(lam) * abs(self.e)))
        rounding += (columns + 4) * self.eps * products
        scale = abs(self.derivative)
        forward, forward_solved = self._residual(r, self.b, size_r)
        backward, adjoint_solved = self._residual(s, self.w, size_s)
        return Verdict(
            forward_residual=forward,
            adjoint_residual=backward,
            forward_solved=forward_solved,
            adjoint_solved=adjoint_solved,
            gradient_error=abs(derivative - self.derivative) / scale,
            allowed=(explained + rounding + self._difference_error) / scale,
        )

    def _residual(self, residual: Array, b: Array, size: Array) -> tuple[float, bool]:
        """Largest relative residual of the columns, and whether each is at its target or at rounding level.

        The method has seen its residual in its own precision, so what rounding does to it there is no fault.
        """
        scale = abs(b).max(axis=0)  # so that the norm of a tiny b is not 0
        scale = np.where(scale > 0, scale, 1.0)
        left, full, rounding = (np.atleast_1d(np.linalg.norm(a / scale, axis=0)) for a in (residual, b, size))
        relative = np.divide(left, full, out=np.where(left == 0, 0.0, np.inf), where=full > 0)
        return float(relative.max()), bool(np.all(left <= self.rtol * full + ATTAINABLE * self.eps * rounding))


def _norm(v: Array) -> float:
    """2-norm, without overflow or underflow on the way."""
    largest = float(abs(v).max())
    return largest * float(np.linalg.norm(v / largest)) if largest else 0.0
