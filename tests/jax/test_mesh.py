"""Several devices: inside shard_map, on meshes with explicit axes, and what is refused where JAX partitions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import tsgu_jax
from tests.jax.cases import often
from tests.jax.child import run
from tsgu_jax import precond

N, DEVICES = 12, 4


def dense(lower=-0.7):
    return np.diag(np.full(N, 2.5)) + np.diag(np.full(N - 1, lower), -1) - np.diag(np.ones(N - 1), 1)


def sparse(full):
    row, col = np.nonzero(full)
    return tsgu_jax.SparseMatrix.from_coo(row, col, jnp.asarray(full[row, col]), full.shape)


def own(method, **arguments):
    return lambda A, b: tsgu_jax.solve(A, b, method, **arguments)


def with_made(method, make):
    return lambda A, b: tsgu_jax.solve(A, b, method, rtol=1e-12, M=make(A))


def _least_squares(full, b):
    return jnp.linalg.solve(full.T @ full, full.T @ b)


def _solve(full, b):
    return jnp.linalg.solve(full, b)


TALL = np.vstack([dense(), np.eye(N)])
CASES = {
    "linear_cg": (dense(-1.0), own(tsgu_jax.linear_cg, rtol=1e-12), _solve),
    "minres": (dense(-1.0), own(tsgu_jax.minres, rtol=1e-12), _solve),
    "bicgstab": (dense(), own(tsgu_jax.bicgstab, rtol=1e-12, atol=1e-13), _solve),
    "gmres": (dense(), lambda A, b: tsgu_jax.solve(A, b, tsgu_jax.gmres, rtol=1e-12, x0=jnp.ones_like(b)), _solve),
    "direct": (dense(), own(tsgu_jax.direct), _solve),
    "auto": (dense(), own(tsgu_jax.auto), _solve),
    "jacobi": (dense(-1.0), with_made(tsgu_jax.linear_cg, precond.jacobi), _solve),
    "block_jacobi": (dense(), with_made(tsgu_jax.gmres, lambda A: precond.block_jacobi(A, 5)), _solve),
    "ilu": (dense(), with_made(tsgu_jax.bicgstab, precond.ilu), _solve),
    "foreign": (dense(), lambda A, b: tsgu_jax.solve(A, b, lambda A, b: jnp.linalg.solve(A.to_dense(), b)), _solve),
    "triangular": (np.tril(dense()), lambda A, b: tsgu_jax.triangular_solve(A, b, upper=False), _solve),
    "lstsq": (TALL, lambda A, b: tsgu_jax.lstsq(A, b, atol=1e-14, btol=1e-14), _least_squares),
    "product": (dense(), lambda A, x: A @ x, lambda full, x: full @ x),
}


def _mesh(kind=AxisType.Auto):
    return jax.make_mesh((DEVICES,), ("d",), axis_types=(kind,))


def in_shard_map(name):
    """Values and derivatives, where both vary over the mesh, or the matrix, or the right-hand side alone."""
    full, solve, truth = CASES[name]
    A, rng = sparse(full), np.random.default_rng(0)
    values = A.values * (1 + 0.1 * rng.random((DEVICES, 1)))
    sides = jnp.asarray(rng.standard_normal((DEVICES, full.shape[1] if name == "product" else full.shape[0])))
    for of_values, of_sides in ((0, 0), (None, 0), (0, None)):

        def each(function, of_values=of_values, of_sides=of_sides):
            return jax.vmap(function, in_axes=(of_values, of_sides))

        specs = tuple(P() if axis is None else P("d") for axis in (of_values, of_sides))
        mapped = jax.shard_map(
            each(lambda v, b: solve(A.with_values(v), b)),
            mesh=_mesh(),
            in_specs=specs,
            out_specs=P("d"),
            check_vma=True,
        )
        given = values[0] if of_values is None else values, sides[0] if of_sides is None else sides
        x, back = jax.jit(lambda *given, mapped=mapped: jax.vjp(mapped, *given))(*given)
        scale = jnp.asarray(rng.standard_normal(x.shape))

        def at(v):
            return jnp.zeros(full.shape).at[A.pattern.row, A.pattern.col].set(v)

        expected, expected_back = jax.vjp(each(lambda v, b: truth(at(v), b)), *given)
        for got, right in zip((x, *back(scale)), (expected, *expected_back(scale)), strict=True):
            np.testing.assert_allclose(got, right, rtol=0, atol=1e-9 * float(jnp.abs(right).max()))


@pytest.mark.parametrize("name", often(CASES, "linear_cg", "direct", "jacobi", "foreign", "triangular", "product"))
def test_solves_run_in_shard_map_with_its_check_of_what_varies(name):
    """Catches: a loop that begins with constants, which vary over no axis; a gradient that is not summed over the
    devices."""
    run(in_shard_map, name, devices=DEVICES)


def partitioned():
    """Whatever calls the host, in a program that JAX partitions: refused, in a moment, and by name."""
    A = sparse(dense())
    mesh = _mesh()
    shardings = {"columns": P(None, "d"), "rows": P("d"), "everywhere": P()}
    block = jnp.asarray(np.random.default_rng(0).standard_normal((N, 8)))
    solves = {
        "direct": lambda b: tsgu_jax.direct(A, b),
        "ilu": lambda b: tsgu_jax.bicgstab(A, b, M=precond.ilu(A)),
        "auto": lambda b: tsgu_jax.auto(A, b),
        "batch": lambda b: jax.vmap(lambda b: tsgu_jax.direct(A, b), 1, 1)(b),
        "gradient": jax.grad(lambda b: (tsgu_jax.direct(A, b) ** 2).sum()),
    }
    prepared = tsgu_jax.direct.prepare(A)
    solves |= {"prepared": prepared.solve}
    for kind, spec in shardings.items():
        b = jax.device_put(block, NamedSharding(mesh, spec))
        for name, solve in solves.items():
            for call in (solve, jax.jit(solve)):
                with pytest.raises(ValueError, match=r"(direct|ilu), which calls the host.*4 devices.*jax\.shard_map"):
                    jax.block_until_ready(call(b))
                print(kind, name)
    b = jax.device_put(block, jax.devices()[1])  # one device, be it another one
    np.testing.assert_allclose(jax.jit(solves["direct"])(b), np.linalg.solve(dense(), block), rtol=1e-10)


def test_a_call_of_the_host_in_a_partitioned_program_is_refused():
    """Catches: devices that wait for the one whose callback waits for their threads, until XLA aborts the process."""
    run(partitioned, devices=DEVICES)


def explicit():
    """The default mesh of jax.make_mesh, where the sharding of an array is part of its type."""
    A, mesh = sparse(dense(-1.0)), jax.make_mesh((DEVICES,), ("d",))
    assert mesh.axis_types == (AxisType.Explicit,)
    rng = np.random.default_rng(0)
    block = rng.standard_normal((N, 8))

    def solve(values, b):
        return tsgu_jax.solve(A.with_values(values), b, tsgu_jax.linear_cg, rtol=1e-12)

    def loss(solve):
        return lambda values, b: (solve(values, b) ** 2).sum()

    def truth(values, b):
        return jnp.linalg.solve(jnp.zeros((N, N)).at[A.pattern.row, A.pattern.col].set(values), b)

    expected = truth(A.values, block)
    gradients = jax.grad(loss(truth), (0, 1))(A.values, jnp.asarray(block))
    for spec in (P(None, "d"), P("d")):
        b = jax.device_put(block, NamedSharding(mesh, spec))
        for call in (solve, jax.jit(solve)):
            x = call(A.values, b)
            np.testing.assert_allclose(x, expected, rtol=0, atol=1e-9)
            assert jax.typeof(x).sharding.spec == jax.typeof(b).sharding.spec
        with jax.set_mesh(mesh):
            got = jax.jit(jax.grad(loss(solve), (0, 1)))(A.values, b)
        for one, other in zip(got, gradients, strict=True):
            np.testing.assert_allclose(one, other, rtol=0, atol=1e-9)
    rows = jax.device_put(block.T.copy(), NamedSharding(mesh, P("d")))
    x = jax.jit(jax.vmap(lambda b: solve(A.values, b)))(rows)
    np.testing.assert_allclose(x, expected.T, rtol=0, atol=1e-9)
    with jax.set_mesh(mesh):  # a pattern that is first used here must not stay on this mesh
        other = sparse(dense(-1.0))
        jax.block_until_ready(tsgu_jax.linear_cg(other, jax.device_put(block, NamedSharding(mesh, P(None, "d")))))
    assert {len(leaf.devices()) for leaf in jax.tree.leaves(other.pattern)} == {1}


def test_arrays_on_explicit_axes_of_a_mesh_are_solved_with():
    """Catches: a scatter whose sharding would have to be spelled out; index arrays that are kept on a mesh."""
    run(explicit, devices=DEVICES)


def leaks():
    """A matrix first used where everything is traced, and then elsewhere."""
    b = jnp.ones(N)
    mapped = {"mesh": _mesh(), "in_specs": P("d"), "out_specs": P("d")}
    uses = {
        "transposed": lambda A: jax.linear_transpose(lambda x: A @ x, b)(b),
        "mapped": lambda A: jax.shard_map(jax.vmap(lambda b: tsgu_jax.linear_cg(A, b)), **mapped)(jnp.stack([b] * 4)),
        "triangle": lambda A: jax.shard_map(
            jax.vmap(lambda b: tsgu_jax.triangular_solve(A.with_values(A.values), b, upper=False)), **mapped
        )(jnp.stack([b] * 4)),
        "preconditioned": lambda A: jax.linear_transpose(lambda x: precond.jacobi(A)(A.T @ x), b)(b),
        "gathered": lambda A: jax.linear_transpose(lambda v: A.pattern.gather(v) + A.pattern.T.gather(v), A.values)(
            A.values
        ),
    }
    for name, use in uses.items():
        full = np.tril(dense(-1.0)) if name == "triangle" else dense(-1.0)
        A = sparse(full)
        use(A)
        for leaf in jax.tree.leaves((A.pattern, A.pattern.T)):
            assert not isinstance(leaf, jax.core.Tracer), name
        x = jax.jit(lambda b, A=A: tsgu_jax.direct(A, b))(b)
        np.testing.assert_allclose(x, np.linalg.solve(full, b), rtol=1e-10)
        if name == "triangle":
            x = jax.jit(lambda b, A=A: tsgu_jax.triangular_solve(A, b, upper=False))(b)
            np.testing.assert_allclose(x, np.linalg.solve(full, b), rtol=1e-10)


def test_what_a_pattern_keeps_is_concrete_wherever_it_is_first_used():
    """Catches: a tracer that is found again by the next trace, and never becomes an array."""
    run(leaks, devices=DEVICES)
