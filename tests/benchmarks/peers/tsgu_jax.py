"""tsgu_jax: one compiled function, to which the pattern and the preconditioner are arguments."""

import jax
import jax.numpy as jnp

import tsgu_jax
from tests.benchmarks.peers import Run
from tests.benchmarks.peers.compiled import gradient, to_device
from tests.benchmarks.peers.methods import choice, told


def start(method, case, rtol) -> Run:
    pattern = tsgu_jax.Pattern(case.rows, case.A.indices, case.A.shape)
    b, w = jnp.asarray(case.b), jnp.asarray(case.w)
    arguments = choice(tsgu_jax, method, case, rtol)
    preconditioned = "+" in method

    def solution(values, b, pattern, *M):
        A = pattern.matrix(values)
        given = arguments_with(*M) if preconditioned else arguments(A)
        return tsgu_jax.solve(A, b, **given)

    def arguments_with(M):
        return {"solve": getattr(tsgu_jax, method.split()[0]), "rtol": rtol, "M": M}

    def preconditioner(values):
        return (arguments(pattern.matrix(values))["M"],) if preconditioned else ()

    compiled = gradient(solution)

    def steps(values):
        with tsgu_jax.record() as log:  # which hears of functions that are compiled inside it
            jax.block_until_ready(gradient(solution)(values, w, b, pattern, *preconditioner(values)))
        return told(log)

    return Run(lambda v: jax.block_until_ready(compiled(v, w, b, pattern, *preconditioner(v))), to_device, steps)
