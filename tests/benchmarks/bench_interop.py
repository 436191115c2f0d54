"""A JAX solver inside torch beside torch's own: forward plus backward, double precision, after compilation."""

import pytest

import tsgu
import tsgu_jax
from tests.benchmarks.bench_torch import both_ways, laplacian, sides, tensor
from tsgu_jax.interop import jax_solver


@pytest.mark.parametrize(("m", "rounds"), [(64, 21), (300, 7)])
def bench_compiled_cg_beside_that_of_torch(compare, m, rounds):
    A = tensor(laplacian(m))
    b, w = sides(m * m)
    runs = {
        "jax_solver": both_ways(A, b, w, jax_solver(tsgu_jax.linear_cg)),
        "torch": both_ways(A, b, w, tsgu.linear_cg),
    }
    compare(runs, rounds, {"torch": 0.6})
