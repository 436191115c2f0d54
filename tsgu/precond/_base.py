"""What a preconditioner is to the Krylov methods: a linear operator r -> M r that is data, and has a transpose."""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor

from tsgu._core.report import _solver_words
from tsgu._matrix import _checks, _internals
from tsgu._matrix._autocast import widened
from tsgu._matrix._pattern import Pattern
from tsgu._matrix._sparse_matrix import SparseMatrix

P = ParamSpec("P")
M = TypeVar("M")


@dataclass(frozen=True)
class Origin:
    """Which matrices a preconditioner can be refreshed with: those on the pattern that it was built for, or, for the
    transpose of one, on the transposed pattern."""

    pattern: Pattern
    transposed: bool = False

    @property
    def T(self) -> Origin:  # noqa: N802
        return Origin(self.pattern, not self.transposed)


class Preconditioner(ABC):
    """An approximation of the inverse of a matrix, to be given as ``M`` to a Krylov method.

    Attributes
    ----------
    shape : tuple of int
        (n, n).
    dtype : torch.dtype
    device : torch.device

    Examples
    --------
    >>> import torch, tsgu
    >>> A = torch.tensor([[4.0, 1.0], [0.0, 2.0]]).to_sparse()
    >>> M = tsgu.precond.ilu(A)
    >>> isinstance(M, tsgu.precond.Preconditioner)
    True
    >>> M.T(torch.tensor([4.0, 5.0]))  # solves with the transpose of A
    tensor([1., 2.])
    """

    _origin: Origin | None = None
    """None for a class of the user's, which has no ``refresh``."""

    def __init__(self, n: int, dtype: torch.dtype, device: torch.device) -> None:
        self.shape = (n, n)
        self.dtype = dtype
        self.device = device

    def __call__(self, v: Tensor) -> Tensor:
        """M v for v of shape (n,) or (n, k); not differentiated."""
        if not isinstance(v, Tensor) or v.dim() not in (1, 2) or v.shape[0] != self.shape[0]:
            got = tuple(v.shape) if isinstance(v, Tensor) else type(v).__name__
            raise ValueError(f"v must be a tensor of shape ({self.shape[0]},) or ({self.shape[0]}, k); got {got}.")
        v = widened(v)
        with _internals.without_autocast(), torch.no_grad():
            return self.to(torch.promote_types(self.dtype, v.dtype)).apply(v.detach().resolve_conj())

    @abstractmethod
    def apply(self, v: Tensor) -> Tensor:
        """M v for a plain tensor of the dtype and on the device of M."""

    @property
    @abstractmethod
    def T(self) -> Preconditioner:  # noqa: N802 - the name that NumPy and torch use
        """The transpose, for the adjoint system."""

    @abstractmethod
    def to(self, dtype: torch.dtype) -> Preconditioner:
        """The same in another dtype."""

    def refresh(self, A: Any) -> Preconditioner:
        """The same preconditioner for another matrix on the same pattern: a new one, and this one stays as it is.

        It takes what was found on the pattern, or by much work on the values, from this one, and makes the rest anew:
        in a training loop, where the values drift, it is as good as one that is built, for a small part of the time.

        Parameters
        ----------
        A : Tensor (sparse COO or CSR) or SparseMatrix, shape (n, n)
            On the pattern of the matrix that this was built for, of the transpose's for a transpose. Detached.

        Returns
        -------
        Preconditioner
            Of the dtype of this one.

        Raises
        ------
        ValueError
            If A is of another shape or pattern or on another device, a batch, or not finite; if a diagonal entry is
            zero, or whatever else the preconditioner needs is missing.
        TypeError
            If A is dense or of another dtype, or complex where this is real; if ``torch.func.vmap`` maps over its
            values; if the preconditioner is of another class than those of :mod:`tsgu.precond`.

        Examples
        --------
        >>> import torch, tsgu
        >>> A = tsgu.SparseMatrix.from_tensor(torch.tensor([[4.0, 1.0], [1.0, 2.0]]).to_sparse())
        >>> M = tsgu.precond.jacobi(A)
        >>> M.refresh(A.with_values(2 * A.values))(torch.ones(2))
        tensor([0.1250, 0.2500])
        """
        return _refreshed(self, A)

    def _anew(self, A: SparseMatrix) -> Preconditioner:
        """The same for a matrix that fits."""
        raise TypeError(_solver_words.refreshed_by(type(self).__name__))

    def fitted(self, n: int, dtype: torch.dtype, device: torch.device) -> Preconditioner:
        """The same for systems of this size, dtype and device.

        Raises
        ------
        ValueError
            If the size or the device is another.
        TypeError
            If M is complex and the system is real.
        """
        if self.shape != (n, n) or self.device != device:
            raise ValueError(_solver_words.shape_of_m(n, self.shape, device, self.device))
        if self.dtype.is_complex and not dtype.is_complex:
            raise TypeError(_solver_words.complex_m(self.dtype))
        return self.to(dtype)

    def __repr__(self) -> str:
        return f"<{type(self).__name__.lower()}: shape={self.shape}, dtype={self.dtype}, device={self.device}>"


def undifferentiated(build: Callable[P, M]) -> Callable[P, M]:
    """Make a function build its preconditioner of plain tensors, whatever transforms or autocast surround the call."""

    @functools.wraps(build)
    def plainly(*args: P.args, **kwargs: P.kwargs) -> M:
        args = tuple(map(widened, args))  # type: ignore[assignment]
        with _internals.untransformed(), _internals.without_autocast(), torch.no_grad():
            return build(*args, **kwargs)

    return plainly


@undifferentiated
def _refreshed(M: Preconditioner, A: Any) -> Preconditioner:
    name, origin = type(M).__name__.lower(), M._origin
    if origin is None:
        raise TypeError(_solver_words.refreshed_by(type(M).__name__))
    if isinstance(A, Tensor | SparseMatrix) and A.device != M.device:
        raise ValueError(_solver_words.refreshed_device(name, M.device, A.device))
    A = matrix(A)
    if A.shape != M.shape:
        raise ValueError(_solver_words.refreshed_shape(name, M.shape[0], tuple(A.shape)))
    if A.dtype.is_complex and not M.dtype.is_complex:
        raise TypeError(_solver_words.refreshed_complex(name, M.dtype, A.dtype))
    if origin.transposed:
        return _refreshed(M.T, A.T).T
    if not A.pattern.symbolic.equals(origin.pattern.symbolic):
        raise ValueError(_solver_words.refreshed_pattern(name, origin.pattern.nnz, A.pattern.nnz))
    return M._anew(SparseMatrix(A.values.to(M.dtype), origin.pattern))


def matrix(A: Any) -> Any:
    """A as a SparseMatrix of plain, finite values, cut from the graph."""
    if not isinstance(A, SparseMatrix):
        _checks.check_tensor_matrix(A)
        A = SparseMatrix.from_tensor(_plain(A))
    _checks.check_square(A.shape, "SparseMatrix")
    _checks.check_dtype("A", A.values)
    values = _plain(A.values)
    if values.dim() != 1:
        raise ValueError(_solver_words.one_matrix(tuple(values.shape), _solver_words.OF_ONE_MEMBER))
    _checks.check_finite("A", values)
    return SparseMatrix(values, A.pattern)


def _plain(tensor: Tensor) -> Tensor:
    """Detached, and without the wrappers of torch.func."""
    tensor = _internals.without_derivatives(tensor)
    if _internals.is_mapped(tensor):
        raise TypeError(
            "A must be the same for all members of a batch; got values that vmap maps over. Build the preconditioner "
            "outside of vmap, of one member or of their mean."
        )
    return tensor.detach().resolve_conj().resolve_neg()
