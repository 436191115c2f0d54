"""A matrix, or a preconditioner, given as a function: traced once, and transposed by JAX.

What the function closes over is data from then on, as the values of a stored matrix are: it is seen where it is traced,
it is differentiated, and it is an argument of a compiled program instead of a part of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.flatten_util import ravel_pytree
from jax.lax import stop_gradient
from jax.tree_util import register_dataclass

from tsgu._core.report import _function_words, _wording
from tsgu_jax._matrix import _checks
from tsgu_jax._matrix._columns import norm, power_of_two
from tsgu_jax._matrix._same import same_program
from tsgu_jax._program._internals import evaluated
from tsgu_jax.precond._base import Preconditioner

Apply = Callable[[Array], Array]


@partial(register_dataclass, data_fields=["consts", "T"], meta_fields=["jaxpr", "like"])
@dataclass(frozen=True, eq=False)
class Function:
    """A function from arrays of one shape and dtype to the same."""

    consts: Any
    """What it closes over."""
    T: Function | None
    """Its transpose, where the user gave one."""
    jaxpr: Any
    like: jax.ShapeDtypeStruct

    def __call__(self, x: Array) -> Array:
        y: Array = evaluated(self.jaxpr, self.consts, x)[0]
        return y

    @property
    def held(self) -> Function:
        """The same, not differentiated."""
        return replace(self, consts=jax.tree.map(stop_gradient, self.consts), T=None if self.T is None else self.T.held)


def trace(name: str, function: Any, like: jax.ShapeDtypeStruct, convert: bool = False) -> Function:
    """The function as data; ``convert`` where a result of lower precision is no loss.

    Raises
    ------
    ValueError, TypeError
        If it returns another shape or dtype than it is given, or has a ``T`` that is no function.
    """

    def checked(x: Array) -> Array:
        y = function(x)
        if not _checks.is_array(y):
            raise TypeError(
                _function_words.result_of_function(name, str(like.shape), str(like.dtype), type(y).__name__)
            )
        lower = convert and jnp.promote_types(y.dtype, like.dtype) == like.dtype
        if y.shape != like.shape or not (y.dtype == like.dtype or lower):
            got = f"shape {tuple(y.shape)} and dtype {y.dtype}"
            raise (TypeError if y.shape == like.shape else ValueError)(
                _function_words.result_of_function(name, str(like.shape), str(like.dtype), got)
            )
        return jax.lax.convert_element_type(y, like.dtype)  # which also makes a weak type a strong one

    closed = jax.make_jaxpr(checked)(like)
    T = None
    if not name.endswith(".T") and getattr(function, "T", None) is not None:
        if not callable(function.T):
            raise TypeError(_wording.not_a(f"{name}.T", f"a function v -> {name}^T v", function.T))
        T = trace(f"{name}.T", function.T, like, convert)
    return Function(closed.consts, T, same_program(closed.jaxpr), like)


class Derived(NamedTuple):
    """What JAX makes of a function that it can transpose."""

    linear: Apply
    """The function, in a form that JAX can transpose."""
    transpose: Apply


def derive(function: Any, *likes: jax.ShapeDtypeStruct) -> Derived | str:
    """The transpose of a function that takes arrays like one of those; where JAX cannot derive it, why.

    The derivative of a linear function is itself. Taking it, JAX goes by the rules that the function brings for its own
    derivative; where it has none, but its operations can be transposed as they are, they are.
    """
    why = ""
    for like in likes:
        for linear in (partial(_derivative, function), function):
            transpose = partial(_transposed, linear)
            try:
                if not _depends(linear, like):
                    why = why or "its derivative does not depend on its argument"
                    continue
                jax.eval_shape(transpose, like)
            except Exception as error:  # of any kind: each operation has its own way to say that it has no rule
                why = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
            else:
                return Derived(linear, transpose)
    return why


def _depends(linear: Apply, like: jax.ShapeDtypeStruct) -> bool:
    """Whether a derivative is more than the zero that JAX takes for that of numbers seen as bits, or stopped."""
    jaxpr = jax.make_jaxpr(linear)(like).jaxpr
    reached = {id(var) for var in jaxpr.invars}
    for equation in jaxpr.eqns:
        if any(id(var) in reached for var in equation.invars):
            reached.update(id(var) for var in equation.outvars)
    return id(jaxpr.outvars[0]) in reached


def _derivative(function: Apply, x: Array) -> Array:
    return jax.jvp(function, (jnp.zeros_like(x),), (x,))[1]


def _transposed(linear: Apply, u: Array) -> Array:
    (v,) = jax.linear_transpose(linear, jax.ShapeDtypeStruct(u.shape, u.dtype))(u)
    return v


def vectors(like: Any) -> tuple[Array, Array]:
    """Two vectors without structure, or blocks of such, of one shape and dtype."""
    places = jnp.arange(like.size).reshape(like.shape)
    u, v = jnp.cos(1.0 + places**2 % 9973), jnp.sin(2.0 + places**2 % 7919)
    if jnp.issubdtype(like.dtype, jnp.complexfloating):
        u, v = u + 1j * v, v - 1j * u
    return u.astype(like.dtype), v.astype(like.dtype)


def deviation(function: Apply, like: Any) -> Array:
    """How far A(c v) is from c A(v), relative to it, for one v and a factor c for each column; () and real.

    The factors are powers of two (times i where numbers are complex), by which arithmetic of any precision scales
    exactly, so that a function that is linear but for rounding has none to speak of. They differ from column to
    column, since columns are to be independent.
    """
    v, _ = vectors(like)
    c = jnp.asarray([-4.0, -0.5, 8.0])[jnp.arange(like.size // like.shape[0]) % 3].reshape(like.shape[1:])
    c = c.astype(like.dtype) * (1j if jnp.issubdtype(like.dtype, jnp.complexfloating) else 1)
    plain, scaled = jax.lax.map(function, jnp.stack([v, c * v]))  # one copy of the function in the program
    scale = power_of_two(scaled)
    size, off = norm((scaled / scale).ravel()), norm(((scaled - c * plain) / scale).ravel())
    return jnp.where(off == 0, 0, off / jnp.where(size > 0, size, 1))


def adjoint_deviation(function: Apply, transposed: Apply, like: Any) -> Array:
    """How far <u, A v> is from <A^T u, v>, relative to its terms, for one pair of vectors for each column; ()."""
    u, v = vectors(like)
    image, back = function(v), transposed(u)
    terms = norm(u.ravel()) * norm(image.ravel()) + norm(back.ravel()) * norm(v.ravel())
    off = jnp.abs(jnp.sum(u * image) - jnp.sum(back * v))
    return jnp.where(off == 0, 0, off / jnp.where(terms > 0, terms, 1))


class Vectors(NamedTuple):
    """How a pytree is one vector."""

    B: Array
    unravel: Callable[[Array], Any]
    structure: Any

    @classmethod
    def of(cls, B: Any) -> Vectors:
        """The pytree as one vector, of the one dtype that its leaves have."""
        leaves, structure = jax.tree.flatten(B)
        for leaf in leaves:
            if not _checks.is_array(leaf):
                raise ValueError(_wording.not_a("B", "an array, or a pytree of arrays where A is a function", leaf))
            _checks.check_dtype("B", leaf)
        kinds = sorted({str(leaf.dtype) for leaf in leaves})
        if len(kinds) != 1:
            raise TypeError(_function_words.leaves(kinds))
        leaves = [_checks.as_array("B", leaf) for leaf in leaves]
        flat, unravel = ravel_pytree(jax.tree.unflatten(structure, leaves))
        return cls(flat, unravel, jax.tree.map(lambda leaf: leaf.shape, jax.tree.unflatten(structure, leaves)))

    def raveled(self, name: str, tree: Any) -> Array:
        """A pytree of the same structure as one vector."""
        got = jax.tree.map(jnp.shape, tree)
        if got != self.structure:
            raise ValueError(_function_words.structure(name, self.structure, got))
        flat: Array = ravel_pytree(tree)[0]
        return flat

    def function(self, name: str, function: Any) -> Any:
        """A function of pytrees as one of vectors."""

        def flat(x: Array) -> Array:
            return self.raveled(f"The result of {name}", function(self.unravel(x)))

        if not name.endswith(".T") and callable(getattr(function, "T", None)):
            flat.T = self.function(f"{name}.T", function.T)  # type: ignore[attr-defined]
        return flat

    def arguments(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """The start and a preconditioner that is a function, in terms of vectors."""
        changed = dict(arguments)
        if changed.get("x0") is not None:
            changed["x0"] = self.raveled("x0", changed["x0"])
        if is_function(changed.get("M")):
            changed["M"] = self.function("M", changed["M"])
        return changed


def is_function(M: Any) -> bool:
    """Whether a preconditioner is known by its products alone, and is nothing of this package's making."""
    return callable(M) and not isinstance(M, Preconditioner | Function) and not _checks.is_array(M)
