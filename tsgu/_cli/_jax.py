"""The JAX backend, in the precision that the problem has: 64-bit types are turned on for its calls alone."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse as sp
from jax.experimental.sparse import BCOO

import tsgu_jax
from tsgu._cli import _precond
from tsgu._cli._backend import Array, Solution
from tsgu._cli._precond import Precond
from tsgu._core.methods import _registry

_METHODS = _registry.loaded("tsgu_jax", _registry.METHODS)


def differentiate(
    A: sp.csr_array, b: Array, w: Array, method: str, rtol: float, precond: Precond | None = None
) -> Solution:
    """See :class:`tsgu._cli._backend.Backend`. A singular A gives NaN and a report, not an exception."""
    options: dict[str, Any] = {"rtol": rtol} if _registry.method(method).iterative else {}
    entries = A.tocoo()
    indices: Any = np.stack((entries.row, entries.col), axis=1)  # NumPy, so that the pattern is known when traced

    def loss(data: jax.Array, b: jax.Array) -> tuple[jax.Array, jax.Array]:
        matrix = BCOO((data, indices), shape=A.shape, indices_sorted=True, unique_indices=True)
        x = tsgu_jax.solve(matrix, b, solve=_METHODS[method], **options)
        return jnp.sum(w.conj() * x).real, x

    with jax.enable_x64(True):
        if precond is not None:
            given = BCOO((jnp.asarray(A.data), jnp.asarray(indices)), shape=A.shape)
            options["M"] = _precond.build(tsgu_jax.precond, given, precond, A.dtype.kind == "c")
        try:
            gradients, x = jax.grad(loss, (0, 1), has_aux=True)(jnp.asarray(A.data), jnp.asarray(b))
            gradient, adjoint, x = jax.block_until_ready((*gradients, x))
            jax.effects_barrier()
        except jax.errors.JaxRuntimeError as error:
            if "RESOURCE_EXHAUSTED" in str(error):
                raise MemoryError(str(error)) from error
            raise
    # JAX's gradient of a real loss is the conjugate of PyTorch's
    return Solution(np.asarray(x), np.asarray(adjoint).conj(), np.asarray(gradient).conj())
