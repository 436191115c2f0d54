"""Conjugate residuals."""

from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import Array

from tsgu_jax._matrix._columns import divide, dot, norm
from tsgu_jax._methods._krylov import krylov_method
from tsgu_jax._methods._loop import Kernel, Problem
from tsgu_jax._rule._frontend import call


class _State(NamedTuple):
    x: Array  # solution
    r: Array  # residual
    z: Array  # M r
    p: Array  # direction
    Ap: Array
    curvature: Array  # z^H A z
    norm: Array
    broken: Array


def _start(problem: Problem, r: Array, attempt: Array) -> _State:
    z = problem.M(r)
    Ap = problem.A(z)
    size = norm(r)
    return _State(jnp.zeros_like(r), r, z, z, Ap, dot(z, Ap), size, size == 0)


def _step(problem: Problem, s: _State) -> _State:
    """Saad, *Iterative Methods for Sparse Linear Systems*, 2nd ed., Algorithm 6.20, in the inner product of M."""
    q = problem.M(s.Ap)
    square = dot(s.Ap, q)
    alpha = divide(s.curvature, square)
    x, r, z = s.x + alpha * s.p, s.r - alpha * s.Ap, s.z - alpha * q
    Az = problem.A(z)
    curvature = dot(z, Az)
    beta = divide(curvature, s.curvature)
    return _State(x, r, z, z + beta * s.p, Az + beta * s.Ap, curvature, norm(r), (square == 0) | (curvature == 0))


def _solution(problem: Problem, s: _State) -> Array:
    return s.x


@krylov_method(Kernel(_start, _step, _solution, lambda restart: 6), hermitian=True, settings=None)
def conjugate_residuals(A: Any, B: Array, *, x0=None, rtol=None, atol=None, maxiter=None, M=None) -> Array:
    """Solve A X = B by conjugate residuals, for Hermitian positive definite A."""
    return call(conjugate_residuals, A, B, x0=x0, rtol=rtol, atol=atol, maxiter=maxiter, M=M)
