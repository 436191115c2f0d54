"""What the JAX libraries share: one compiled function for the solution and both gradients."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from tests.benchmarks.peers import Outcome, Run


def gradient(solution: Callable[..., Any]) -> Callable[..., Outcome]:
    """x, lambda and the gradient of the values, of ``solution(values, b, *arrays)``; w is the second argument."""

    @jax.jit
    def run(values, w, b, *arrays):
        x, back = jax.vjp(lambda values, b: solution(values, b, *arrays), values, b)
        grad_values, grad_b = back(w)
        return Outcome(x, grad_b, grad_values)

    return run


def run(case, solution: Callable[..., Any], *arrays: Any) -> Run:
    """``solution(values, b, *arrays)``, differentiated and compiled, with every array as an argument."""
    b, w = jnp.asarray(case.b), jnp.asarray(case.w)
    arrays = tuple(map(jnp.asarray, arrays))
    compiled = gradient(solution)
    return Run(lambda values: jax.block_until_ready(compiled(values, w, b, *arrays)), to_device)


def to_device(values) -> jax.Array:
    return jax.block_until_ready(jnp.array(values))


def column_by_column(solve: Callable[[jax.Array], jax.Array], b: jax.Array) -> jax.Array:
    """Solvers of one right-hand side, where there are several: all at once by ``vmap``."""
    return solve(b) if b.ndim == 1 else jax.vmap(solve, in_axes=1, out_axes=1)(b)
