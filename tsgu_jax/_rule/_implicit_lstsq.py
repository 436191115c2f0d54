"""The gradient rule of least squares, on values and dense arrays.

Let x minimise ||A x - b||^2 + damp^2 ||x||^2, and r = b - A x. With c = 0 the two are the solution of

    K [r; x] = [b; c],        K = [I, A; A^H, -damp^2 I],

which ``jax.lax.custom_linear_solve`` differentiates as any linear system: by K [dr; dx] = [db - dA x; dc - dA^H r] in
forward mode, and with K^T = conj(K) for the adjoint, so that the solve that it is given serves both. With upstream
gradients (g_r, g_x), in JAX's convention,

    K^T [w; z] = [g_r; g_x],        grad_b = w,
    grad_A[i, j] = -sum_k (w[i, k] x[j, k] + conj(r[i, k] z[j, k]))  at the stored entries.

The two terms are those of Golub and Pereyra (SIAM J. Numer. Anal. 10 (1973), 413-432, section 4), and every order and
mode follows.
"""

from __future__ import annotations

from typing import Any, Protocol

import jax.numpy as jnp
from jax import Array, lax

from tsgu_jax._program import _mesh

Pair = tuple[Array, Array]


class Solves(Protocol):
    """How to solve with one matrix. Not differentiated."""

    def solve(self, b: Array, c: Array, x0: Array | None) -> tuple[Pair, Any]:
        """r and x with K [r; x] = [b; c], and what became of it, a pytree."""
        ...

    def solve_transpose(self, b: Array, c: Array) -> tuple[Pair, Any]:
        """The same with K^T."""
        ...


class System(Protocol):
    """What the rule must know of a least-squares problem."""

    @property
    def shape(self) -> tuple[int, int]: ...

    def product(self, values: Array, r: Array, x: Array) -> Pair:
        """K [r; x], to be differentiated."""
        ...

    def prepare(self, values: Array) -> Solves:
        """Make prepared for these values, once for forward and adjoint."""
        ...


def lstsq(system: System, values: Array, b: Array, x0: Array | None) -> tuple[Array, Any]:
    """x that minimises ||A x - b||, differentiable in the values and in b, to any order; and what became of it."""
    prepared = system.prepare(lax.stop_gradient(values))
    m, n = system.shape

    # One array, since custom_linear_solve cannot be transposed where the cotangent of one output of several is zero. As
    # for linear systems, the start is another unknown y with y = x0: so it reaches the solver with the right-hand side,
    # and is zero in every tangent and adjoint solve.
    def product(unknowns: Array) -> Array:
        r, x, start = jnp.split(unknowns, (m, m + n))
        return jnp.concatenate([*system.product(values, r, x), start])

    def solve(sides: Array) -> tuple[Array, Any]:
        b, c, start = jnp.split(sides, (m, m + n))
        pair, info = prepared.solve(b, c, None if x0 is None else start)
        return jnp.concatenate([*pair, start]), info

    def solve_transpose(sides: Array) -> tuple[Array, Any]:
        b, c, start = jnp.split(sides, (m, m + n))
        pair, info = prepared.solve_transpose(b, c)
        return jnp.concatenate([*pair, start]), info

    sides = [b, jnp.zeros((n, *b.shape[1:]), b.dtype)] + ([] if x0 is None else [lax.stop_gradient(x0)])
    solved, info = _mesh.linear_solve(product, jnp.concatenate(sides), solve, solve_transpose)
    return solved[m : m + n], info
