"""Programs over several devices: arrays that vary over the axes of a mesh, and what is concrete beside them.

Inside ``jax.shard_map`` JAX knows of each array over which axes of the mesh it varies, and wants all that a loop
carries, or that the branches of a condition return, to vary over the same axes before and after. A constant varies over
none. So a solve begins with :func:`alike`, and its loops are those of this module.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax import Array, lax
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from tsgu_jax._program import _internals


def lifted(tree: Any) -> Any:
    """NumPy arrays as concrete arrays that belong to no mesh, to be kept.

    A tracer in their place would outlive its trace, and an array on one mesh could not be used beside those on another.
    """
    with _internals.concretely():  # copies, since on the CPU JAX goes on to use the memory that it is given
        return jax.tree.map(lambda a: jax.device_put(np.array(a)), tree)


def axes_of(*trees: Any) -> frozenset[Any]:
    """The axes of a mesh over which something in these pytrees varies."""
    leaves = (leaf for leaf in jax.tree.leaves(trees) if isinstance(leaf, Array))
    return frozenset().union(*map(_axes, leaves))


def _axes(leaf: Array) -> frozenset[Any]:
    return _internals.varying_axes(leaf) if _internals.is_traced(leaf) else frozenset()


def varying(tree: Any, axes: frozenset[Any]) -> Any:
    """The same pytree, every array of which varies over these axes at least."""
    if not axes:
        return tree

    def vary(leaf: Any) -> Any:
        if not isinstance(leaf, Array | np.ndarray | np.generic | int | float | complex):
            return leaf
        missing = tuple(sorted(axes - (_axes(leaf) if isinstance(leaf, Array) else frozenset()), key=str))
        return lax.pcast(leaf, missing, to="varying") if missing else leaf

    return jax.tree.map(vary, tree)


def alike(*trees: Any) -> Any:
    """The same pytrees, every array of which varies over the axes that any of them varies over."""
    return varying(trees, axes_of(trees))


def linear_solve(
    product: Any,
    b: Array,
    solve: Callable[[Array], tuple[Array, Any]],
    transposed: Callable[[Array], tuple[Array, Any]] | None,
    symmetric: bool = False,
) -> tuple[Array, Any]:
    """``lax.custom_linear_solve``, also inside ``shard_map``; without ``transposed`` it cannot be transposed.

    Both solves return what became of them beside the solution, a pytree of one structure.

    It makes what the functions close over vary like b, after they have been traced for what they closed over then. So
    there the product gets what it closes over as it will be, and each function is a program of its own, whose constants
    do not show.
    """
    if AxisType.Manual in jax.sharding.get_abstract_mesh().axis_types:
        converted, closed_over = jax.closure_convert(product, b)
        b, closed_over = alike(b, closed_over)
        product = jax.jit(lambda x: converted(x, *closed_over))
        solve = _varying_as(b, solve)
        transposed = None if transposed is None else _varying_as(b, transposed)
    adjoint = None if transposed is None else lambda _, g: transposed(g)
    found: tuple[Array, Any] = lax.custom_linear_solve(
        product, b, lambda _, b: solve(b), adjoint, symmetric=symmetric, has_aux=True
    )
    return found


def _varying_as(b: Array, solve: Callable[[Array], Any]) -> Callable[[Array], Any]:
    """The solve as a program of its own, all results of which vary as b does."""
    axes = axes_of(b)
    return jax.jit(lambda b: varying(solve(b), axes))


def while_loop(going: Callable[[Any], Any], body: Callable[[Any], Any], first: Any) -> Any:
    """``lax.while_loop`` whose carry varies alike."""
    axes = axes_of(first)
    return lax.while_loop(going, lambda carry: varying(body(carry), axes), varying(first, axes))


def fori_loop(start: Any, stop: Any, body: Callable[[Any, Any], Any], first: Any, **options: Any) -> Any:
    """``lax.fori_loop`` whose carry varies alike, and as its bounds do."""
    axes = axes_of(start, stop, first)
    start, stop = (bound if isinstance(bound, int) else varying(bound, axes) for bound in (start, stop))
    return lax.fori_loop(start, stop, lambda i, carry: varying(body(i, carry), axes), varying(first, axes), **options)


def scan(body: Callable[[Any, Any], Any], first: Any, xs: Any) -> Any:
    """``lax.scan`` whose carry varies alike."""
    axes = axes_of(first, xs)

    def step(carry: Any, x: Any) -> Any:
        after, y = body(carry, x)
        return varying(after, axes), y

    return lax.scan(step, varying(first, axes), xs)


def cond(wanted: Any, on_true: Callable[..., Any], on_false: Callable[..., Any], *operands: Any) -> Any:
    """``lax.cond`` whose result varies as all that goes in."""
    axes = axes_of(wanted, operands)

    def branch(function: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *operands: varying(function(*operands), axes)

    return lax.cond(wanted, branch(on_true), branch(on_false), *operands)


def with_automatic_axes(function: Callable[..., Any], *args: Any) -> Any | None:
    """``function(*args)``, a pair, for arrays whose sharding is part of their type; its first part is sharded like the
    last argument, the rest not at all.

    A method scatters, gathers and sums over rows, and would have to say of each how the result is to be sharded: that
    is left to JAX inside the solve. None where no array is sharded so.
    """
    if jax.device_count() == 1:
        return None
    leaves, structure = jax.tree.flatten(args)
    places = [place for place, leaf in enumerate(leaves) if isinstance(leaf, Array)]
    shardings = [jax.typeof(leaves[place]).sharding for place in places]
    mesh = next((s.mesh for s in shardings if AxisType.Explicit in s.mesh.axis_types), None)
    if mesh is None:
        return None

    def filled(*arrays: Array) -> Any:
        for place, array in zip(places, arrays, strict=True):
            leaves[place] = array
        return function(*jax.tree.unflatten(structure, leaves))

    shardings_out = NamedSharding(mesh, shardings[-1].spec), NamedSharding(mesh, PartitionSpec())
    automatic = jax.sharding.auto_axes(filled, out_sharding=shardings_out)
    return automatic(*(leaves[place] for place in places))
