"""The gradient rule of linear systems, on values and dense arrays.

For A x = b with upstream gradient g (JAX's convention for complex numbers: transposes, no conjugates),

    A^T lam = g,        grad_b = lam,        grad_A[i, j] = -sum_k lam[i, k] x[j, k]  at the stored entries,

and in forward mode A dx = db - dA x. Both follow from differentiating A x = b, dA x + A dx = db, and from transposing
what is linear in it. ``jax.lax.custom_linear_solve`` does so: it is given the product as something to differentiate
with respect to the values, and the two solves as something that it calls. The tangent and the adjoint solve are that
primitive again, so that every higher order is right by construction.
"""

from __future__ import annotations

from functools import partial
from typing import Any, Protocol, cast

import jax.numpy as jnp
from jax import Array, lax
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from tsgu_jax._program import _mesh


class Solves(Protocol):
    """How to solve with one matrix, and with its transpose. Not differentiated."""

    @property
    def refusal(self) -> str | None:
        """Why the system cannot be differentiated, if so."""
        ...

    @property
    def atol(self) -> Any:
        """The absolute tolerance of the user's own solve; None for zero."""
        ...

    def solve(self, b: Array, x0: Array | None, atol: Any) -> tuple[Array, Any]:
        """x with A x = b, and what became of it, a pytree."""
        ...

    def solve_transpose(self, g: Array) -> tuple[Array, Any]:
        """y with A^T y = g, and the same pytree of it."""
        ...


class System(Protocol):
    """What the rule must know of a linear system."""

    @property
    def transposable(self) -> bool:
        """Whether JAX can transpose the product."""
        ...

    def product(self, values: Array | None, x: Array) -> Array:
        """A x, to be differentiated."""
        ...

    def prepare(self, values: Array | None) -> Solves:
        """Make prepared for these values, once for forward and adjoint."""
        ...


def solve(system: System, values: Array | None, b: Array, x0: Array | None) -> tuple[Array, Any]:
    """Solve A x = b, and what became of it; x is differentiable in the values and in b, to any order."""
    prepared = system.prepare(None if values is None else lax.stop_gradient(values))
    product, refusal = partial(system.product, values), prepared.refusal
    adjoint = None if refusal is not None else prepared.solve_transpose
    # "Symmetric" keeps JAX from transposing the product. It would need that for derivatives with respect to what the
    # product closes over, which such a product refuses.
    opaque = adjoint is not None and not system.transposable
    if x0 is None and prepared.atol is None:
        x, info = _mesh.linear_solve(product, b, lambda b: prepared.solve(b, None, None), adjoint, opaque)
    else:
        x, info = _solve_with_what_is_its_own(prepared, product, b, x0, adjoint, opaque)
    return x if refusal is None else cast(Array, untransposed_p.bind(x, message=refusal)), info


def _solve_with_what_is_its_own(
    prepared: Solves, product: Any, b: Array, x0: Array | None, adjoint: Any, opaque: bool
) -> tuple[Array, Any]:
    """The start and the absolute tolerance belong to this solve alone.

    As further unknowns y with y = x0 and y = atol, below A x = b, they reach the solver with the right-hand side, and
    are zero in every tangent and adjoint solve, since y does not vary.
    """
    n = b.shape[0]
    known = [] if x0 is None else [lax.stop_gradient(x0)]
    if prepared.atol is not None:
        known.append(jnp.full((1, *b.shape[1:]), prepared.atol, b.dtype))

    def solved(rows: Array) -> tuple[Array, Any]:
        start = None if x0 is None else rows[n : 2 * n]
        x, info = prepared.solve(rows[:n], start, None if prepared.atol is None else rows[-1].real.max())
        return with_rest(x, rows), info

    def solved_transpose(rows: Array) -> tuple[Array, Any]:
        y, info = adjoint(rows[:n])
        return with_rest(y, rows), info

    def with_rest(x: Array, rows: Array) -> Array:
        return jnp.concatenate([x, rows[n:]])

    xs, info = _mesh.linear_solve(
        lambda xs: with_rest(product(xs[:n]), xs),
        jnp.concatenate([b, *known]),
        solved,
        None if adjoint is None else solved_transpose,
        opaque,
    )
    return xs[:n], info


untransposed_p = Primitive("untransposed")
"""The identity, whose transpose is refused: an adjoint solve that cannot be had is an error before it is run.

It is reached by reverse mode, by ``jax.linear_transpose`` and by whatever else transposes a solve; forward mode, which
needs the matrix alone, passes it.
"""


def _refuse_transpose(cotangent: Any, x: Any, *, message: str) -> Any:
    raise TypeError(message)


untransposed_p.def_impl(lambda x, message: x)
untransposed_p.def_abstract_eval(lambda x, message: x)
ad.deflinear2(untransposed_p, _refuse_transpose)
batching.defvectorized(untransposed_p)
mlir.register_lowering(untransposed_p, lambda _, x, message: [x])
