"""The same solve in both packages, and its results side by side.

JAX runs compiled, with the indices as arguments, so that one program serves all systems of a size.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
from jax.experimental.sparse import BCOO

import tsgu
from tests.contract.compare import assert_close
from tests.contract.systems import System

ENTRIES = 400
"""Every system is padded to as many entries, which a BCOO may be."""

SINGLE = {np.dtype(np.float64): np.dtype(np.float32), np.dtype(np.complex128): np.dtype(np.complex64)}

NAMES = ("solution", "gradient of values", "gradient of b", "tangent", "second derivative, values", "and b")


@dataclass(frozen=True, eq=False)
class Solver:
    """(A, b) -> x in both packages."""

    jax: Callable[[Any, Any], Any]
    torch: Callable[[Any, Any], Any]


def compare(
    solver: Solver,
    system: System,
    b: np.ndarray,
    w: np.ndarray,
    along: tuple[np.ndarray, np.ndarray],
    tol: float,
    second: bool,
    weights: np.ndarray | None = None,
) -> None:
    """Every result of the two packages, at every stored entry, in the dtype of b.

    ``weights`` multiply solution and tangent, whose entries may be of very different sizes.
    """
    ours = [run(solver, system, b, w, along, second) for run in (_in_jax, _in_torch)]
    for name, got, expected in zip(NAMES, *ours, strict=False):
        assert got.dtype == expected.dtype == b.dtype
        scale = weights if weights is not None and name in ("solution", "tangent") else 1
        assert_close(got * scale, expected * scale, tol, f"{name}, JAX against torch")


def padded(system: System, values: np.ndarray) -> tuple[jax.Array, jax.Array]:
    """Data and indices of a BCOO; padding holds numbers that must not matter."""
    extra = ENTRIES - values.size
    place = np.stack([system.row, system.col], axis=1)
    indices = np.concatenate([place, np.broadcast_to(system.shape, (extra, 2))]).astype(np.int32)
    return jnp.asarray(np.concatenate([values, np.full(extra, 7.0, values.dtype)])), jnp.asarray(indices)


@cache
def _compiled(solver: Solver, shape: tuple[int, int], second: bool) -> Callable[..., Any]:
    """(data, indices, b, w, tangents of data and b) -> solution, gradients, tangent, second derivatives."""

    def run(data, indices, b, w, ddata, db):
        def gradients(data, b):
            x, back = jax.vjp(lambda data, b: solver.jax(BCOO((data, indices), shape=shape), b), data, b)
            return x, back((w.conj() * (2 * x if second else 1)).astype(x.dtype))

        if not second:
            return gradients(data, b)
        (x, grads), (dx, dgrads) = jax.jvp(gradients, (data, b), (ddata, db))
        return x, grads, dx, dgrads

    return jax.jit(run)


def _in_jax(solver, system, b, w, along, second):
    """In torch's convention: the gradient with respect to the conjugate."""
    data, indices = padded(system, system.values.astype(b.dtype))
    ddata, _ = padded(system, along[0].astype(b.dtype))
    sides = (jnp.asarray(a.astype(b.dtype)) for a in (b, w))
    db = jnp.asarray(along[1].astype(b.dtype))
    results = _compiled(solver, system.shape, second)(data, indices, *sides, ddata, db)
    jax.effects_barrier()
    results = [np.asarray(a) for a in jax.tree.leaves(results)]
    for place in [1, 4] if second else [1]:
        count = system.values.size
        if place == 1:
            assert not results[place][count:].any(), "padding has a gradient"
        results[place] = results[place][:count].conj()
        results[place + 1] = results[place + 1].conj()
    return results


def _in_torch(solver, system, b, w, along, second):
    """The same in torch. The loss is Re <w, x>, or Re <w, x x> where second derivatives are taken."""
    values = torch.tensor(system.values.astype(b.dtype), requires_grad=True)
    tangents = [torch.tensor(a.astype(b.dtype)) for a in along]
    b, w = torch.tensor(b, requires_grad=True), torch.tensor(w.astype(b.dtype))
    row, col = torch.from_numpy(system.row), torch.from_numpy(system.col)

    def solution(values, b):
        return solver.torch(tsgu.SparseMatrix.from_coo(row, col, values, system.shape), b)

    x = solution(values, b)
    loss = (w.conj() * (x * x if second else x)).sum().real
    grads = torch.autograd.grad(loss, (values, b), create_graph=second)
    if not second:
        return [a.detach().numpy() for a in (x, *grads)]
    dx = torch.func.jvp(solution, (values.detach(), b.detach()), tuple(tangents))[1]
    # The derivative of the gradient along a direction is the gradient of its inner product with it: the Hessian of a
    # real loss is symmetric.
    inner = sum((d.conj() * g).sum().real for d, g in zip(tangents, grads, strict=True))
    seconds = torch.autograd.grad(inner, (values, b))
    return [a.detach().resolve_conj().numpy() for a in (x, *grads, dx, *seconds)]
