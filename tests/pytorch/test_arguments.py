"""What the frontend accepts, what it refuses and in which words, and the specification's own example and paths."""

import re
import subprocess
import sys
import warnings

import pytest
import torch

import tsgu
from tests.contract.systems import METHODS

EYE = torch.eye(3, dtype=torch.float64)
B = torch.ones(3, dtype=torch.float64)


def refused(error, message, *args, **kwargs):
    with pytest.raises(error, match=re.escape(message)):
        tsgu.sparse_generic_solve(*args, **kwargs)


def test_inputs_that_are_not_tensors_are_value_errors():
    """Catches: the specification's ValueError, where isinstance alone would give an AttributeError."""
    refused(ValueError, "A must be a sparse torch.Tensor (COO or CSR) or a SparseMatrix; got ndarray.", EYE.numpy(), B)
    refused(ValueError, "B must be a dense torch.Tensor; got list.", EYE.to_sparse(), [1.0, 1.0, 1.0])


def test_other_layouts_are_type_errors_before_any_shape_is_looked_at():
    """Catches: a shape error about a matrix whose layout is the real trouble."""
    rectangular = torch.ones(3, 2, dtype=torch.float64)
    refused(TypeError, "A must be sparse COO or CSR; got layout torch.strided.", rectangular, B)
    refused(TypeError, "A must be sparse COO or CSR; got layout torch.sparse_csc.", rectangular.to_sparse_csc(), B)
    refused(
        TypeError, "B must be dense (strided); got layout torch.sparse_coo.", rectangular.to_sparse(), B.to_sparse()
    )


def test_shapes_that_do_not_fit_are_value_errors():
    """Catches: a product that broadcasts, or an error from deep inside."""
    refused(ValueError, "A must be square, (n, n); got (3, 2) in layout torch.sparse_coo.", EYE[:, :2].to_sparse(), B)
    refused(ValueError, "A must have two dimensions, (n, n); got (3,)", B.to_sparse(), B)
    refused(ValueError, "A must have two dimensions, (n, n); got (2, 3, 3)", torch.stack([EYE, EYE]).to_sparse(), B)
    refused(ValueError, "A must have scalar entries; got a hybrid", EYE[:, :, None].to_sparse(2), B)
    refused(ValueError, "B must have shape (3,) or (3, k) to match A; got (2,).", EYE.to_sparse(), B[:2])
    refused(ValueError, "B must have shape (3,) or (3, k) to match A; got ().", EYE.to_sparse(), B[0])
    refused(ValueError, "got (3, 2, 1).", EYE.to_sparse(), torch.ones(3, 2, 1, dtype=torch.float64))
    batch = tsgu.SparseMatrix.from_tensor(EYE).with_values(torch.ones(2, 3, dtype=torch.float64))
    refused(ValueError, "B must have shape (2, 3) or (2, 3, k) to match A; got (3,).", batch, B)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.int64])
def test_other_dtypes_are_type_errors(dtype):
    """Catches: half precision that fails in a kernel, integers that truncate the solution."""
    words = f"must have dtype float32, float64, complex64 or complex128; got {dtype}."
    refused(TypeError, f"A {words}", EYE.to(dtype).to_sparse(), B)
    refused(TypeError, f"B {words}", EYE.to_sparse(), B.to(dtype))


def test_different_devices_are_a_value_error_that_names_both():
    """Catches: a kernel that reads host memory from a device."""
    message = "A and B must be on the same device; got A on cpu and B on meta."
    refused(ValueError, message, EYE.to_sparse(), torch.ones(3, dtype=torch.float64, device="meta"))


@pytest.mark.parametrize("method", ["linear_cg", "direct", "gmres"])
def test_non_finite_entries_are_a_value_error_that_counts_them(method):
    """Catches: NaN that spreads through a solve and comes back as "did not converge"."""
    solve = getattr(tsgu, method)
    A, b = EYE.clone(), B.clone()
    A[1, 1], b[0], b[2] = torch.nan, torch.inf, -torch.inf
    refused(ValueError, "A must be finite; got 1 non-finite of 3 entries.", A.to_sparse(), B, solve=solve)
    refused(ValueError, "B must be finite; got 2 non-finite of 3 entries.", EYE.to_sparse(), b, solve=solve)
    large = torch.full((3,), 1e308, dtype=torch.float64)
    tsgu.sparse_generic_solve(EYE.to_sparse(), large, solve=solve)  # finite, though the sum is not


@pytest.mark.parametrize(
    ("a", "b", "common"),
    [
        (torch.float32, torch.float64, torch.float64),
        (torch.float64, torch.complex64, torch.complex128),
        (torch.complex64, torch.float32, torch.complex64),
    ],
)
def test_mixed_dtypes_are_promoted_with_a_warning_and_each_gradient_keeps_its_own(a, b, common):
    """Catches: a gradient of the promoted dtype, which an optimiser cannot add to its parameter."""
    A = (2 * EYE).to(a).to_sparse().requires_grad_()
    rhs = B.clone().to(b).requires_grad_()
    with pytest.warns(UserWarning, match=f"A and B have different dtypes, {a} and {b}; both are promoted to {common}"):
        x = tsgu.sparse_generic_solve(A, rhs)
    assert x.dtype == common
    x.abs().sum().backward()
    assert A.grad.dtype == a
    assert rhs.grad.dtype == b
    torch.testing.assert_close(rhs.grad, torch.full((3,), 0.5, dtype=b))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("shape", [(0,), (0, 2), (3, 0)])
def test_empty_systems_are_empty_and_differentiable(method, shape):
    """Catches: a reduction over nothing."""
    n = shape[0]
    A = torch.eye(n, dtype=torch.float64).to_sparse().requires_grad_()
    b = torch.ones(shape, dtype=torch.float64, requires_grad=True)
    x = tsgu.sparse_generic_solve(A, b, solve=getattr(tsgu, method))
    assert x.shape == shape
    x.sum().backward()
    assert b.grad.shape == shape
    assert torch.count_nonzero(A.grad.to_dense()) == 0


def test_the_layout_of_b_does_not_matter():
    """Catches: a transposed or strided right-hand side read as if it were contiguous."""
    A = (EYE + torch.triu(EYE.flip(0))).to_sparse()
    wide = torch.arange(12, dtype=torch.float64).reshape(2, 6).T[::2]
    expected = tsgu.direct(A, wide.contiguous())
    for method in (tsgu.direct, tsgu.gmres, tsgu.bicgstab):
        torch.testing.assert_close(method(A, wide), expected)


def test_own_methods_called_alone_are_differentiable():
    """Catches: a bare solver that silently detaches its result."""
    A = (EYE * torch.tensor([1.0, 2.0, 4.0])).to_sparse().requires_grad_()
    b = B.clone().requires_grad_()
    for method in (tsgu.linear_cg, tsgu.minres, tsgu.bicgstab, tsgu.gmres, tsgu.direct):
        grads = torch.autograd.grad(method(A, b).sum(), (A, b))
        torch.testing.assert_close(grads[1], torch.tensor([1.0, 0.5, 0.25], dtype=torch.float64))
        torch.testing.assert_close(grads[0].to_dense(), -torch.diag(grads[1].square()))


def test_a_callable_stands_for_a_hermitian_matrix_in_both_directions():
    """Catches: a gradient that needs a transpose which a callable does not have."""
    D = torch.tensor([[4.0, 1j], [-1j, 3.0]], dtype=torch.complex128)
    b = torch.tensor([1.0, 2.0 + 1j], dtype=torch.complex128, requires_grad=True)
    for method in (tsgu.linear_cg, tsgu.minres):
        x = method(lambda v: D @ v, b, rtol=1e-12)
        (g,) = torch.autograd.grad(x, b, torch.ones_like(x))
        torch.testing.assert_close(x, torch.linalg.solve(D, b))
        torch.testing.assert_close(g, torch.linalg.solve(D.mH, torch.ones_like(b)))


def test_a_callable_preconditioner_is_transposed_by_autograd():
    """Catches: M applied untransposed in the adjoint: with the inverse as M, one step would no longer do."""
    dense = 2 * EYE + torch.triu(torch.ones_like(EYE), 1)
    inverse = torch.linalg.inv(dense)
    b = B.clone().requires_grad_()
    for method in (tsgu.bicgstab, tsgu.gmres):
        with tsgu.record() as log:
            x = tsgu.sparse_generic_solve(dense.to_sparse(), b, method, M=lambda v: inverse @ v, rtol=1e-12)
            (g,) = torch.autograd.grad(x.sum(), b)
        torch.testing.assert_close(g, inverse.T @ torch.ones_like(B))
        assert [(info.transposed, info.iterations) for info in log] == [(False, 1), (True, 1)]


def test_a_callable_preconditioner_that_cannot_be_transposed_is_refused_before_the_solve():
    """Catches: M applied untransposed in the adjoint, or the error only in the backward pass."""
    A = (2 * EYE + torch.triu(torch.ones_like(EYE), 1)).to_sparse()
    opaque = lambda v: torch.from_numpy(v.numpy().copy())  # noqa: E731
    b = B.clone().requires_grad_()
    for method in (tsgu.bicgstab, tsgu.gmres):
        refused(TypeError, f"M must have a transpose where {method.name} is differentiated", A, b, method, M=opaque)
        tsgu.sparse_generic_solve(A, B, method, M=opaque)  # nothing to differentiate
    refused(TypeError, "M must have a transpose", A, b, lambda A, B, M: torch.linalg.solve(A.to_dense(), B), M=opaque)
    spd = (2 * EYE).to_sparse()
    tsgu.sparse_generic_solve(spd, b, tsgu.linear_cg, M=opaque).sum().backward()
    torch.testing.assert_close(b.grad, B / 2)


def test_preconditioners_may_be_any_kind_of_matrix():
    """Catches: a layout of M that is read as another, or refused."""
    A = torch.diag(torch.tensor([1.0, 10.0, 100.0, 1000.0], dtype=torch.float64)) + 0.1
    inverse = torch.diag(1 / torch.diagonal(A))
    b = torch.arange(4, dtype=torch.float64)
    kinds = [inverse, inverse.to_sparse(), inverse.to_sparse_csr(), tsgu.SparseMatrix.from_tensor(inverse)]
    for M in [*kinds, lambda v: inverse @ v]:
        with tsgu.record() as log:
            x = tsgu.linear_cg(A.to_sparse(), b, M=M, rtol=1e-10)
        torch.testing.assert_close(x, torch.linalg.solve(A, b))
        assert log[0].iterations <= 5
    refused(ValueError, "M must be a (4, 4) matrix on cpu, or a callable; got (3, 3) on cpu.",
            A.to_sparse(), b, tsgu.linear_cg, M=EYE)  # fmt: skip
    refused(TypeError, "M must be a matrix or a callable", A.to_sparse(), b, tsgu.linear_cg, M=3.0)


@pytest.mark.parametrize("layout", [torch.strided, torch.sparse_coo, torch.sparse_csr])
def test_a_preconditioner_of_any_layout_is_transposed_for_the_adjoint(layout):
    """Catches: the transpose of a CSR tensor, for which torch raises an internal error."""
    D = 2 * EYE + torch.triu(torch.ones_like(EYE), 1)
    inverse = torch.linalg.inv(D)
    M = inverse if layout == torch.strided else inverse.to_sparse(layout=layout)
    b = B.clone().requires_grad_()
    for method in (tsgu.gmres, tsgu.bicgstab):
        b.grad = None
        with tsgu.record() as log:
            tsgu.sparse_generic_solve(D.to_sparse(), b, method, M=M).sum().backward()
        assert [info.transposed for info in log] == [False, True]
        assert all(info.iterations <= 2 for info in log), log
        torch.testing.assert_close(b.grad, torch.linalg.solve(D.T, B))


def test_a_solver_with_prepare_is_prepared_once_for_both_directions():
    """Catches: a factorisation made again for the adjoint."""
    calls = []

    class Solver:
        def __call__(self, A, B):
            raise AssertionError("prepare comes first")

        def prepare(self, A):
            calls.append("prepare")
            inverse = torch.linalg.inv(A.to_dense())

            class Ready:
                def solve(self, B):
                    return inverse @ B

                def solve_transpose(self, G):
                    return inverse.T @ G

            return Ready()

    D = EYE * 2 + torch.triu(torch.ones_like(EYE), 1)
    A, b = D.to_sparse().requires_grad_(), B.clone().requires_grad_()
    x = tsgu.sparse_generic_solve(A, b, solve=Solver())
    x.sum().backward()
    assert calls == ["prepare"]
    torch.testing.assert_close(b.grad, torch.linalg.solve(D.T, B))


def test_what_a_foreign_solver_returns_is_checked():
    """Catches: a result of the wrong shape or kind that broadcasts its way into a gradient."""
    A = EYE.to_sparse()
    refused(ValueError, "squeeze must return the solution as a tensor of shape (3, 1); got shape (3,).",
            A, B[:, None], named("squeeze", lambda A, B: B[:, 0]))  # fmt: skip
    refused(TypeError, "must return the solution as a tensor of shape (3,); got ndarray.", A, B, lambda A, B: B.numpy())
    refused(TypeError, "got torch.complex128.", A, B, lambda A, B: B * 1j)
    x = tsgu.sparse_generic_solve(A, B, solve=lambda A, B: (B.float(), 0))
    assert x.dtype == torch.float64


def named(name, function):
    function.__name__ = name
    return function


def test_a_foreign_solver_gets_the_matrix_in_its_own_layout_and_no_graph():
    """Catches: A.T of a CSR matrix as CSC, int32 indices as int64, a graph that grows inside the solver."""
    csr = (2 * EYE + torch.triu(torch.ones_like(EYE), 1)).to_sparse_csr()
    csr32 = torch.sparse_csr_tensor(csr.crow_indices().int(), csr.col_indices().int(), csr.values())
    seen = []

    def solver(A, B):
        seen.append((A.layout, A.requires_grad, B.requires_grad, torch.is_grad_enabled(), index_dtype(A)))
        return torch.linalg.solve(A.to_dense(), B)

    def index_dtype(A):
        return A.col_indices().dtype if A.layout == torch.sparse_csr else A._indices().dtype

    for A in (csr, csr32, csr.to_sparse_coo()):
        seen.clear()
        tsgu.sparse_generic_solve(A.requires_grad_(), B, solve=solver).sum().backward()
        assert seen == [(A.layout, False, False, False, index_dtype(A))] * 2


def test_settings_of_the_wrong_class_are_refused_in_the_forward_pass():
    """Catches: settings that fail, or are ignored, only in the backward pass."""
    from tsgu.utils.bicgstab import BICGSTABSettings
    from tsgu.utils.linear_cg import LinearCGSettings
    from tsgu.utils.minres import MINRESSettings

    A = (EYE + 1).to_sparse()
    ok = {
        tsgu.linear_cg: LinearCGSettings(max_cg_iterations=7, cg_tolerance=1e-3),
        tsgu.minres: MINRESSettings(max_cg_iterations=7, minres_tolerance=1e-3),
        tsgu.bicgstab: BICGSTABSettings(matvec_max=14, reltol=1e-3, abstol=1e-9, precon=EYE),
    }
    for method, settings in ok.items():
        tsgu.sparse_generic_solve(A, B, solve=method, settings=settings)
        for other in ok.values():
            if other is not settings:
                message = f"settings: {method.name} accepts settings of type {type(settings).__name__}; got"
                refused(TypeError, message, A, B, method, settings=other)
    refused(TypeError, "accepts the keyword arguments", A, B, tsgu.gmres, settings=ok[tsgu.minres])
    refused(TypeError, "rtol must be given once", A, B, tsgu.linear_cg, settings=ok[tsgu.linear_cg], rtol=1e-4)
    # refused although only the adjoint would use it
    refused(TypeError, "settings: minres accepts", A, B.clone().requires_grad_(), tsgu.linear_cg, tsgu.minres,
            settings=ok[tsgu.linear_cg])  # fmt: skip


def test_settings_mean_what_the_arguments_mean():
    """Catches: matvec_max taken for steps, a tolerance dropped on the way."""
    from tsgu.utils.bicgstab import BICGSTABSettings

    generator = torch.Generator().manual_seed(0)
    D = torch.randn(40, 40, dtype=torch.float64, generator=generator) + 20 * torch.eye(40, dtype=torch.float64)
    b = torch.randn(40, dtype=torch.float64, generator=generator)
    with tsgu.record() as log, warnings.catch_warnings():
        warnings.simplefilter("ignore", tsgu.ConvergenceWarning)
        tsgu.bicgstab(D.to_sparse(), b, settings=BICGSTABSettings(matvec_max=6))
        tsgu.bicgstab(D.to_sparse(), b, maxiter=3)
        tsgu.bicgstab(D.to_sparse(), b, settings=BICGSTABSettings(reltol=1e-2))
    assert [info.iterations for info in log[:2]] == [3, 3]
    assert 1e-8 < log[2].residual <= 1e-2


def test_import_paths_give_the_methods_in_any_order():
    """Catches: ``from tsgu.utils import linear_cg`` that gives the module, once it has been imported as one."""
    lines = (
        "import tsgu.utils.linear_cg",
        "from tsgu.utils import linear_cg, minres, bicgstab",
        "from tsgu.utils.linear_cg import LinearCGSettings, linear_cg as same",
        "import tsgu",
        "assert linear_cg is same is tsgu.linear_cg and minres is tsgu.minres and bicgstab is tsgu.bicgstab",
        "assert LinearCGSettings is tsgu.LinearCGSettings",
        "from tsgu.utils import BICGSTABSettings, LinearCGSettings as cg, MINRESSettings",
        "assert cg is LinearCGSettings",
        "assert (BICGSTABSettings, MINRESSettings) == (tsgu.BICGSTABSettings, tsgu.MINRESSettings)",
    )
    for order in (lines, (lines[1], lines[0], *lines[2:])):
        subprocess.run([sys.executable, "-c", "\n".join(order)], check=True)


def test_importing_tsgu_loads_no_framework_and_changes_no_setting():
    """Catches: torch loaded for somebody who wants tsgu_jax, a warning filter left behind, threads set."""
    code = """
import sys, warnings
filters = list(warnings.filters)
import tsgu
assert "torch" not in sys.modules and "jax" not in sys.modules
dir(tsgu)
tsgu.record, tsgu.SolveInfo, tsgu.ConvergenceWarning
assert "torch" not in sys.modules
import torch
threads, dtype, seed = torch.get_num_threads(), torch.get_default_dtype(), torch.initial_seed()
state = torch.random.get_rng_state()
tsgu.bicgstab(torch.eye(2).to_sparse(), torch.ones(2))
assert "jax" not in sys.modules
assert (threads, dtype, seed) == (torch.get_num_threads(), torch.get_default_dtype(), torch.initial_seed())
assert torch.equal(state, torch.random.get_rng_state())
assert all(f in warnings.filters for f in filters)
"""
    subprocess.run([sys.executable, "-W", "error::UserWarning", "-c", code], check=True)


def test_a_missing_torch_names_the_extra():
    """Catches: ModuleNotFoundError: No module named 'torch', which tells a newcomer nothing."""
    code = """
import sys
sys.modules["torch"] = None
import tsgu
try:
    tsgu.sparse_generic_solve
except ImportError as error:
    assert 'pip install "tsgu[torch]"' in str(error), error
else:
    raise AssertionError
"""
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("verify", [0, -1.0, "no", True, float("inf")])
def test_verify_must_be_a_positive_number_or_none(verify):
    """Catches: verify=False taken for 0, which nothing satisfies."""
    refused(ValueError, "verify must be a positive number, or None", EYE.to_sparse(), B, verify=verify)


def test_x0_is_checked():
    """Catches: a start of another shape that broadcasts."""
    A = EYE.to_sparse()
    refused(ValueError, "x0 must have the shape of B, (3,); got (3, 1).", A, B, tsgu.linear_cg, x0=B[:, None])
    refused(TypeError, "x0 must be a torch.Tensor like B; got float.", A, B, tsgu.linear_cg, x0=0.0)
    refused(TypeError, "x0 must be real for a real system", A, B, tsgu.linear_cg, x0=B * 1j)
    refused(ValueError, "x0 must be finite; got 3 non-finite", A, B, tsgu.linear_cg, x0=B * torch.nan)


def test_singular_is_a_lin_alg_error():
    """Catches: a RuntimeError of SuperLU, or infinities."""
    singular = torch.tensor([[1.0, 2.0], [2.0, 4.0]], dtype=torch.float64).to_sparse()
    refused(torch.linalg.LinAlgError, "A must not be singular for direct", singular, B[:2], tsgu.direct)
    empty = torch.zeros(2, 2, dtype=torch.float64).to_sparse()
    refused(torch.linalg.LinAlgError, "A must not be singular for direct", empty, B[:2], tsgu.direct)
