"""The two packages against each other: same systems, same methods, same answers, derivatives, reports and words.

Nothing here is compared to a dense truth; the contract suite does that for each package. JAX runs compiled, with the
indices as arguments, so that one program serves all systems of a size.
"""

from functools import cache

import numpy as np
import pytest

pytest.importorskip("torch", reason="needs torch")
pytest.importorskip("jax", reason="needs jax")

import jax
import jax.numpy as jnp
import torch
from jax.experimental.sparse import BCOO

import tsgu
import tsgu_jax
from tests.contract.cases import RTOL, direction, options
from tests.contract.compare import assert_close, tolerance
from tests.contract.systems import BY_NAME, PAIRS, System, right_hand_side
from tsgu import _implicit, _products, _system

ENTRIES = 400
"""Every system is padded to as many entries, which a BCOO may be."""


@pytest.fixture(autouse=True)
def x64():
    with jax.enable_x64(True):
        yield
        jax.effects_barrier()


def padded(system: System, values: np.ndarray) -> tuple[jax.Array, jax.Array]:
    """Data and indices of a BCOO; padding holds numbers that must not matter."""
    extra = ENTRIES - values.size
    place = np.stack([system.row, system.col], axis=1)
    indices = np.concatenate([place, np.full((extra, 2), system.n)]).astype(np.int32)
    return jnp.asarray(np.concatenate([values, np.full(extra, 7.0, values.dtype)])), jnp.asarray(indices)


@cache
def compiled(method: str, n: int, rtol: float, second: bool):
    """(data, indices, b, w, tangents of data and b) -> solution, gradients, tangent, second derivatives; for JAX."""

    def run(data, indices, b, w, ddata, db):
        def solution(data, b):
            A = BCOO((data, indices), shape=(n, n))
            return tsgu_jax.solve(A, b, getattr(tsgu_jax, method), **options(method, rtol))

        def gradients(data, b):
            x, back = jax.vjp(solution, data, b)
            return x, back((w.conj() * (2 * x if second else 1)).astype(x.dtype))

        if not second:
            return gradients(data, b)
        (x, grads), (dx, dgrads) = jax.jvp(gradients, (data, b), (ddata, db))
        return x, grads, dx, dgrads

    return jax.jit(run)


def jax_results(method, system, b, w, along, dtype, rtol, second):
    """In torch's convention: the gradient with respect to the conjugate."""
    data, indices = padded(system, system.values.astype(dtype))
    ddata, _ = padded(system, along[0].astype(dtype))
    arrays = (jnp.asarray(a.astype(dtype)) for a in (b, w, along[1]))
    b, w, db = arrays
    results = compiled(method, system.n, rtol, second)(data, indices, b, w, ddata, db)
    jax.effects_barrier()
    count = system.values.size
    cut = [np.asarray(a) for a in jax.tree.leaves(results)]
    gradients = [1, 4] if second else [1]
    for place in gradients:
        assert not cut[place][count:].any(), "padding has a gradient"
        cut[place] = cut[place][:count].conj()
        cut[place + 1] = cut[place + 1].conj()
    return cut


def torch_results(method, system, b, w, along, dtype, rtol, second):
    """The same in torch. The loss is Re <w, x>, or Re <w, x x> where second derivatives are taken."""
    values = torch.tensor(system.values.astype(dtype), requires_grad=True)
    b, w, db = (torch.tensor(a.astype(dtype)) for a in (b, w, along[1]))
    b.requires_grad_()
    row, col = torch.from_numpy(system.row), torch.from_numpy(system.col)

    def solution(values, b):
        A = tsgu.SparseMatrix.from_coo(row, col, values, (system.n, system.n))
        return tsgu.sparse_generic_solve(A, b, getattr(tsgu, method), **options(method, rtol))

    x = solution(values, b)
    loss = (w.conj() * (x * x if second else x)).sum().real
    grads = torch.autograd.grad(loss, (values, b), create_graph=second)
    if not second:
        return [a.detach().numpy() for a in (x, *grads)]
    tangents = torch.tensor(along[0].astype(dtype)), db
    dx = torch.func.jvp(solution, (values.detach(), b.detach()), tangents)[1]
    # The derivative of the gradient along a direction is the gradient of its inner product with it: the Hessian of a
    # real loss is symmetric.
    inner = sum((d.conj() * g).sum().real for d, g in zip(tangents, grads, strict=True))
    seconds = torch.autograd.grad(inner, (values, b))
    return [a.detach().numpy() for a in (x, *grads, dx, *seconds)]


NAMES = ("solution", "gradient of values", "gradient of b", "tangent", "second derivative, values", "and b")


def compare(method: str, system: System, dtype, rtol: float, second: bool) -> None:
    """Every result of the two packages at every stored entry."""
    b, w = right_hand_side(system, 2), right_hand_side(system, 2, seed=4)
    along = direction(system, b)
    if method in ("linear_cg", "minres"):  # which a matrix off the Hermitian ones is not meant for
        along = np.zeros_like(along[0]), along[1]
    dtype = np.result_type(dtype, system.values.dtype) if dtype == np.float64 else SINGLE[system.values.dtype]
    ours = [run(method, system, b, w, along, dtype, rtol, second) for run in (jax_results, torch_results)]
    tol = tolerance(system.condition, np.finfo(dtype).dtype, rtol, order=4 if second else 2)
    for name, got, expected in zip(NAMES, *ours, strict=False):
        assert got.dtype == expected.dtype
        assert_close(got, expected, tol, f"{name}, JAX against torch")


SINGLE = {np.dtype(np.float64): np.dtype(np.float32), np.dtype(np.complex128): np.dtype(np.complex64)}
LARGE = [(method, system) for method, system in PAIRS if system.n > 1]
pairs = pytest.mark.parametrize(("method", "system"), LARGE, ids=str)


@pairs
def test_solutions_gradients_tangents_and_second_derivatives_agree(method, system):
    """A rule that one package applies in another way than the other."""
    compare(method, system, np.float64, RTOL, second=True)


@pairs
def test_single_precision_agrees_to_single_precision(method, system):
    """A tolerance or a scale that one package takes from double precision."""
    compare(method, system, np.float32, 1e-6, second=False)


WRONG_RULES = {
    "no transpose": "gradient of values|gradient of b",
    "no conjugate": "gradient of values",
    "swapped in second order": "second derivative",
}


@pytest.mark.parametrize("fault", WRONG_RULES)
def test_a_wrong_rule_is_noticed(monkeypatch, fault):
    """A comparison that cannot fail."""
    if fault == "no transpose":
        right = _system.LinearSystem.solve
        monkeypatch.setattr(
            _system.LinearSystem,
            "solve",
            lambda self, v, b, x0, transposed, primal: right(self, v, b, x0, False, primal),
        )
    elif fault == "no conjugate":
        right = _products.sampled_product
        monkeypatch.setattr(_products, "sampled_product", lambda pattern, u, v: right(pattern, u, v.conj()))
    else:
        monkeypatch.setattr(_implicit._Solve, "backward", staticmethod(_swapped_backward))
    system = BY_NAME["complex general"]
    with pytest.raises(AssertionError, match=f"(?s)({WRONG_RULES[fault]}).*off by.*worst entries"):
        compare("direct", system, np.float64, RTOL, second=True)


def _swapped_backward(ctx, g):
    """The adjoint solve differentiated as a solve with A whose solvers are swapped, not as one with A^H."""
    values, x = ctx.saved_tensors
    lam = _implicit._apply(
        _implicit._Solve, values, g.conj().resolve_conj(), None, ctx.system, not ctx.transposed, False
    )
    lam = lam.conj().resolve_conj()
    return -_implicit.sampled(lam, x, ctx.system.pattern), lam, None, None, None, None
