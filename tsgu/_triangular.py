"""The differentiable sparse triangular solve."""

import time
from typing import Any

import scipy.sparse as sp
import torch
from torch import Tensor
from torch.overrides import handle_torch_function, has_torch_function_variadic

from tsgu._core.factors import _substitution
from tsgu._core.factors._substitution import Array, DiagonalError, NotOneError, Substitution
from tsgu._core.methods._options import default_rtol
from tsgu._core.pattern._triangle import Triangle
from tsgu._core.report import _log, _matrix_words, _status
from tsgu._core.report._place import Place, caller
from tsgu._matrix import _checks, _products
from tsgu._matrix._pattern import Pattern
from tsgu._matrix._sparse_matrix import SparseMatrix
from tsgu._rule import _implicit
from tsgu._rule._checked import checked_system, over_batch
from tsgu._rule._dynamo import uncompiled
from tsgu._rule._outcome import Wanted, info_of, wanted


@uncompiled
def sparse_triangular_solve(
    A: Tensor | SparseMatrix,
    B: Tensor,
    upper: bool = True,
    unitriangular: bool = False,
    transpose: bool = False,
    *,
    on_failure: str | None = None,
    return_info: bool = False,
) -> Any:
    r"""Solve A X = B, or A^T X = B, for sparse triangular A and dense B, with gradients that keep A's sparsity.

    The rule is that of :func:`sparse_generic_solve`, the adjoint being substitution in the other direction. The work is
    done on the host.

    Parameters
    ----------
    A : Tensor (sparse COO or CSR) or SparseMatrix, shape (m, m) or (batch, m, m)
        float32, float64, complex64 or complex128. Repeated positions are added. The members of a batch of tensors may
        have patterns of their own (in CSR as many entries each); a SparseMatrix holds a batch of values on one pattern.
    B : Tensor, dense, shape (m,) or (m, k); for a batch (batch, m) or (batch, m, k)
        Right-hand sides, on the same device. Where the dtypes differ, both are promoted, with a warning, and each
        gradient has the dtype of its own input.
    upper : bool
        Whether A is upper triangular, or lower. It says where A's entries are, whatever ``transpose`` is.
    unitriangular : bool
        Whether the diagonal consists of ones. It need not be stored; where it is, it is not a variable, and its
        gradient is zero.
    transpose : bool
        Whether to solve with A^T, without conjugation for complex A too.
    on_failure : {"warn", "nan", "ignore"}, optional
        What is done where a solve fails: see :func:`on_failure`.
    return_info : bool
        Whether to return ``(X, info)``, with the :class:`Info` of the forward solve.

    Returns
    -------
    Tensor
        X, with the shape of B. Differentiable with respect to A and B. A SparseMatrix: to any order, in reverse and
        forward mode, under ``torch.func`` and ``vmap``. A sparse tensor: to second order in reverse mode, where it is a
        leaf or made from a dense tensor; PyTorch loses the second order of
        ``torch.sparse_coo_tensor(indices, values)``, and a warning says so when it is asked for. Gradients with respect
        to a sparse tensor come back in its layout and index dtype, coalesced.
        With ``return_info`` the pair of X and its :class:`Info`.

    Raises
    ------
    ValueError
        If A or B is not a tensor; if A is not square or B does not match it; if they lie on different devices; if A or
        B has entries that are not finite. If an entry is stored on the wrong side of the diagonal, zero or not; if a
        diagonal entry is not stored; with ``unitriangular``, if only part of the diagonal is, or something else there
        than ones.
    TypeError
        If A is neither COO nor CSR, or B is not dense; if a dtype is not supported; if ``upper``, ``unitriangular`` or
        ``transpose`` is not a bool.
    torch.linalg.LinAlgError
        If an entry of the diagonal is zero, and A is no batch.

    Warns
    -----
    ConvergenceWarning
        If A is singular to working precision, or the solution overflows. In a batch, if an entry of the diagonal is
        zero: the solution of that member is NaN, the warning names it, and the others are solved.
    UserWarning
        If A and B have different dtypes, or a second derivative is lost inside PyTorch.

    See Also
    --------
    sparse_generic_solve : for any other square matrix.
    record : what each solve did.

    References
    ----------
    N. J. Higham, *Accuracy and Stability of Numerical Algorithms*, 2nd ed., SIAM 2002, chapter 8; M. B. Giles,
    *Collected Matrix Derivative Results for Forward and Reverse Mode Algorithmic Differentiation*, 2008, section 2.3.1.

    Examples
    --------
    >>> import torch, tsgu
    >>> L = torch.tensor([[2.0, 0.0], [1.0, 4.0]]).to_sparse().requires_grad_()
    >>> x = tsgu.sparse_triangular_solve(L, torch.tensor([2.0, 9.0]), upper=False)
    >>> x
    tensor([1., 2.], grad_fn=...)
    >>> x.sum().backward()
    >>> L.grad.to_dense()
    tensor([[-0.3750,  0.0000],
            [-0.2500, -0.5000]])
    """
    if has_torch_function_variadic(A, B):  # as for sparse_generic_solve
        return handle_torch_function(
            sparse_triangular_solve,
            (A, B),
            A,
            B,
            upper,
            unitriangular,
            transpose,
            on_failure=on_failure,
            return_info=return_info,
        )
    for name, flag in (("upper", upper), ("unitriangular", unitriangular), ("transpose", transpose)):
        _checks.check_flag(name, flag)
    values, pattern, given, B = checked_system(A, B, batches=True)
    members = given.shape[0] if given is not None and given.dim() == 3 else None  # the diagonal blocks of the pattern
    triangle = Triangle(pattern.symbolic, upper, unitriangular, members or 1)
    system = TriangularSystem(triangle, pattern, members, caller(), wanted(on_failure, return_info))
    if triangle.ones:  # constants, so that they have no gradient, stored or not
        values = torch.where(pattern.row == pattern.col, values.detach(), values)
    b = B if members is None else B.flatten(0, 1)
    found = over_batch(lambda v, b, _: _implicit.solve(v, b, None, system, transpose), values, b, None)
    if isinstance(found, Tensor):
        return found.reshape(B.shape)
    x, told = found
    vector = B.dim() == (values.dim() if members is None else 2)
    return x.reshape(B.shape), info_of(told.squeeze(-3) if members is None else told, x.dtype, vector)


class TriangularSystem:
    """A triangular system as the gradient rule sees it; see :class:`tsgu._rule._implicit.System`.

    A batch of tensors is one system whose diagonal blocks are the members, solved in one go and reported member by
    member.
    """

    def __init__(self, triangle: Triangle, pattern: Pattern, members: int | None, place: Place, wanted: Wanted) -> None:
        self.pattern: Pattern | None = pattern
        self.place, self.wanted, self.members = place, wanted, members or 1
        self._triangle, self._members = triangle, members
        self._blocks: dict[int, TriangularSystem] = {}

    def solve(self, values: Tensor | None, b: Tensor, x0: Tensor | None, transposed: bool, primal: bool) -> Tensor:
        assert values is not None
        if primal:
            _checks.check_finite("A", values)
            _checks.check_finite("B", b)
        began = time.perf_counter()
        try:
            triangle = Substitution(self._triangle, _host(values), _kernel, self._members is not None or _log.goes_on())
        except DiagonalError as error:
            place = self._triangle.place(error.row)
            said = error.count, self._triangle.symbolic.shape[0], *place
            if isinstance(error, NotOneError):
                raise ValueError(_matrix_words.not_one_on_diagonal(*said)) from error
            message = _matrix_words.zero_on_diagonal(*said)
            raise torch.linalg.LinAlgError(message) from error  # type: ignore[attr-defined]  # not in torch's __all__
        x, members = triangle.solve(_host(b), transposed)
        seconds = time.perf_counter() - began
        for index, columns in enumerate(members):
            info = _status.summarize("triangular", transposed, columns, seconds)
            with _log.of_member(None if self._members is None else (index, self._members)):
                _log.report(info, default_rtol(triangle.eps))
        return torch.from_numpy(x).to(b.device)

    def blocks(self, count: int) -> "TriangularSystem":
        if count not in self._blocks:
            assert self.pattern is not None
            pattern, members = self.pattern._blocks(count), count * (self._members or 1)
            triangle = Triangle(
                pattern.symbolic, self._triangle.upper, self._triangle.unit or self._triangle.ones, members
            )
            self._blocks[count] = TriangularSystem(triangle, pattern, members, self.place, self.wanted)
        return self._blocks[count]


def _kernel(matrix: sp.csr_array, b: Array, upper: bool, transposed: bool) -> Array:
    """By MKL where PyTorch is built on it, which is several times quicker than SciPy."""
    if not (torch.backends.mkl.is_available() and hasattr(torch, "triangular_solve")):
        return _substitution.scipy_kernel(matrix, b, upper, transposed)
    _products.hear_beta_warning()
    indptr, indices, data = (torch.from_numpy(part) for part in (matrix.indptr, matrix.indices, matrix.data))
    csr = torch.sparse_csr_tensor(indptr, indices, data, matrix.shape, check_invariants=False)
    rhs = torch.from_numpy(b)
    x: Array = torch.triangular_solve(rhs, csr, upper=upper, transpose=transposed).solution.numpy()
    return x


def _host(tensor: Tensor) -> Array:
    array: Array = tensor.resolve_conj().resolve_neg().contiguous().cpu().numpy()
    return array
