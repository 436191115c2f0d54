"""The gradient rule: everything of the package that knows of differentiation, on values and dense arrays.

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

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from tsgu_jax._matrix import _products
from tsgu_jax._matrix._products import Entries
from tsgu_jax._program import _mesh
from tsgu_jax._program._promotion import as_usual


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

    def solve(self, b: Array, x0: Array | None, atol: Any) -> Array:
        """x with A x = b."""
        ...

    def solve_transpose(self, g: Array) -> Array:
        """y with A^T y = g."""
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
        """Make ready for these values, once for forward and adjoint."""
        ...


def solve(system: System, values: Array | None, b: Array, x0: Array | None) -> Array:
    """Solve A x = b; differentiable in the values and in b, to any order."""
    ready = system.prepare(None if values is None else lax.stop_gradient(values))
    product, refusal = partial(system.product, values), ready.refusal
    adjoint = None if refusal is not None else ready.solve_transpose
    # "Symmetric" keeps JAX from transposing the product. It would need that for derivatives with respect to what the
    # product closes over, which such a product refuses.
    opaque = adjoint is not None and not system.transposable
    if x0 is None and ready.atol is None:
        x = _mesh.linear_solve(product, b, lambda b: ready.solve(b, None, None), adjoint, opaque)
    else:
        x = _solve_with_what_is_its_own(ready, product, b, x0, adjoint, opaque)
    return x if refusal is None else cast(Array, untransposed_p.bind(x, message=refusal))


def _solve_with_what_is_its_own(
    ready: Solves, product: Any, b: Array, x0: Array | None, adjoint: Any, opaque: bool
) -> Array:
    """The start and the absolute tolerance belong to this solve alone.

    As further unknowns y with y = x0 and y = atol, below A x = b, they reach the solver with the right-hand side, and
    are zero in every tangent and adjoint solve, since y does not vary.
    """
    n = b.shape[0]
    known = [] if x0 is None else [lax.stop_gradient(x0)]
    if ready.atol is not None:
        known.append(jnp.full((1, *b.shape[1:]), ready.atol, b.dtype))

    def solved(rows: Array) -> Array:
        start = None if x0 is None else rows[n : 2 * n]
        return ready.solve(rows[:n], start, None if ready.atol is None else rows[-1].real.max())

    def with_rest(x: Array, rows: Array) -> Array:
        return jnp.concatenate([x, rows[n:]])

    xs = _mesh.linear_solve(
        lambda xs: with_rest(product(xs[:n]), xs),
        jnp.concatenate([b, *known]),
        lambda rows: with_rest(solved(rows), rows),
        None if adjoint is None else lambda rows: with_rest(adjoint(rows[:n]), rows),
        opaque,
    )
    return xs[:n]


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


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def refusing(message: str, x: Any) -> Any:
    """x, a pytree, for which a derivative cannot be had."""
    return x


@refusing.defjvp
def _refuse(message: str, primals: Any, tangents: Any) -> Any:
    raise TypeError(message)


@jax.jit
@as_usual
def product(values: Array, x: Array, entries: Entries) -> Array:
    """A @ x for x of shape (n,) or (n, k); for a batch of values, of x with the same leading dimension."""
    values, x, entries = _mesh.alike(values, x, entries)
    return (jax.vmap(_product, in_axes=(0, 0, None)) if values.ndim == 2 else _product)(values, x, entries)


@jax.custom_jvp
def _product(values: Array, x: Array, entries: Entries) -> Array:
    """By a layout, for speed."""
    return _times(values, x, entries, False)


@as_usual
def _product_jvp(primals: Any, tangents: Any) -> tuple[Array, Array]:
    values, x, entries = primals
    parts = [
        times(*factors, entries)
        for times, factors, tangent in (
            (_products.entrywise, (tangents[0], x), tangents[0]),
            (_linear, (values, tangents[1]), tangents[1]),
        )
        if not isinstance(tangent, jax.custom_derivatives.SymbolicZero)
    ]
    y = _product(values, x, entries)
    return y, sum(parts[1:], parts[0]) if parts else jnp.zeros_like(y)


_product.defjvp(_product_jvp, symbolic_zeros=True)


def _linear(values: Array, x: Array, entries: Entries) -> Array:
    """A x as something linear in x, transposed by the layout of A^T, where JAX would turn gathers into a scatter.

    It is the v of the system u = x, v - A u = 0, under the rule above.
    """
    m, n = entries.shape
    fixed = lax.stop_gradient(values)
    stacked = _mesh.linear_solve(
        lambda uv: jnp.concatenate([uv[:n], uv[n:] - _products.entrywise(values, uv[:n], entries)]),
        jnp.concatenate([x, jnp.zeros((m, *x.shape[1:]), x.dtype)]),
        lambda b: jnp.concatenate([b[:n], b[n:] + _times(fixed, b[:n], entries, False)]),
        lambda g: jnp.concatenate([g[:n] + _times(fixed, g[n:], entries, True), g[n:]]),
    )
    return stacked[n:]


def _times(values: Array, x: Array, entries: Entries, transposed: bool) -> Array:
    return _products.apply(_products.operand(values, entries, transposed), x, finite=False)
