"""Conjugate residuals."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from tsgu._methods._columns import Arithmetic, Scalar
from tsgu._methods._krylov import krylov_method
from tsgu._methods._loop import Kernel, Problem
from tsgu._rule._frontend import call


class _State(NamedTuple):
    x: Tensor  # solution
    r: Tensor  # residual
    z: Tensor  # M r
    p: Tensor  # direction
    Ap: Tensor
    curvature: Scalar  # z^H A z
    norm: Scalar
    broken: Any


def _start(space: Arithmetic, problem: Problem, r: Tensor, attempt: int) -> _State:
    z = problem.M(r).clone()
    Ap = problem.A(z).clone()
    norm = space.norm(r)
    return _State(torch.zeros_like(r), r, z, z.clone(), Ap, space.dot(z, Ap), norm, norm == 0)


def _step(space: Arithmetic, problem: Problem, s: _State) -> _State:
    """Saad, *Iterative Methods for Sparse Linear Systems*, 2nd ed., Algorithm 6.20, in the inner product of M."""
    q = problem.M(s.Ap)
    square = space.dot(s.Ap, q)
    alpha = space.divide(s.curvature, square)
    space.add(s.x, alpha, s.p)
    space.add(s.r, -alpha, s.Ap)
    space.add(s.z, -alpha, q)
    Az = problem.A(s.z)
    curvature = space.dot(s.z, Az)
    beta = space.divide(curvature, s.curvature)
    space.combine(s.z, beta, s.p)
    space.combine(Az, beta, s.Ap)
    return _State(s.x, s.r, s.z, s.p, s.Ap, curvature, space.norm(s.r), (square == 0) | (curvature == 0))


def _solution(space: Arithmetic, problem: Problem, s: _State) -> Tensor:
    return s.x


@krylov_method(Kernel(_start, _step, _solution, lambda options: 6), hermitian=True, settings=None)
def conjugate_residuals(A: Any, B: Tensor, *, x0=None, rtol=None, atol=None, maxiter=None, M=None) -> Tensor:
    """Solve A X = B by conjugate residuals, for Hermitian positive definite A."""
    return call(conjugate_residuals, A, B, x0=x0, rtol=rtol, atol=atol, maxiter=maxiter, M=M)
