"""A solution method of the package: callable on its own, and something that can be prepared for one matrix."""

from collections.abc import Callable, Mapping
from typing import Any, ParamSpec, Protocol

import torch
from torch import Tensor
from torch.autograd import forward_ad

from tsgu._core.methods._method import MethodBase
from tsgu._core.methods._options import Settings
from tsgu._core.report import _solver_words
from tsgu._core.report._failure import policy_of
from tsgu._matrix import _checks
from tsgu._matrix._autocast import uncast, widened
from tsgu._matrix._pattern import Pattern
from tsgu._matrix._sparse_matrix import SparseMatrix
from tsgu._rule._outcome import Wanted, settled
from tsgu.precond._base import Preconditioner

P = ParamSpec("P")


class Prepared(Protocol):
    """A method prepared for one matrix."""

    def solve(self, B: Tensor, x0: Tensor | None = None, primal: bool = True) -> Tensor:
        """X with A X = B; ``primal`` for the user's own B, of whose size an absolute tolerance speaks."""

    def solve_transpose(self, G: Tensor) -> Tensor:
        """Y with A^T Y = G, as the adjoint needs it."""


class PreparedSolver:
    """A method prepared for one matrix, as :meth:`Method.prepare` returns it: to be called, or given as ``solve=``.

    Its solves are not differentiated. Given to :func:`tsgu.sparse_generic_solve` it serves the forward and the adjoint
    solve of the same matrix, as often as that is solved with. It keeps a copy of the matrix, from which a copy of it is
    prepared again, by ``copy.deepcopy`` or ``pickle``.

    What ``direct`` has prepared, and its transpose ``.T``, may also be given as ``M`` to a Krylov method for another
    matrix. There the factors precondition: they are not judged, and the solution is that of the method.
    """

    def __init__(
        self, method: "Method[Any]", A: Any, arguments: Mapping[str, Any], prepared: Prepared | None = None
    ) -> None:
        self.name, self._starts = method.name, method.starts
        self._made_of = method, A, arguments
        self._prepared = method.prepared(A, **arguments) if prepared is None else prepared
        self.atol = float(arguments.get("atol", 0.0))
        self._shape: tuple[int, ...] | None = A.shape if isinstance(A, SparseMatrix) else None
        self._dtype: torch.dtype | None = A.dtype if isinstance(A, SparseMatrix) else None

    def solve(self, B: Tensor, x0: Tensor | None = None) -> Tensor:
        """X with A X = B, for B of shape (n,) or (n, k), from x0, which ``direct`` and ``auto`` do not take."""
        if x0 is not None and not self._starts:
            raise TypeError(_solver_words.no_start(self.name))
        return self._settled(lambda: uncast(self._prepared.solve)(self._checked("B", B), x0))

    def solve_transpose(self, G: Tensor) -> Tensor:
        """Y with A^T Y = G, for G of shape (n,) or (n, k), to ``rtol`` alone: ``atol`` is in the units of B."""
        return self._settled(lambda: uncast(self._prepared.solve_transpose)(self._checked("G", G)))

    def _settled(self, solve: Callable[[], Tensor]) -> Tensor:
        (x,), _ = settled(Wanted(policy_of(None)), 1, False, lambda: (solve(),))
        return x

    def within_the_rule(self, B: Tensor, transposed: bool, primal: bool) -> Tensor:
        """The same for the gradient rule, which also solves for what is not the user's B."""
        if transposed:
            return self.solve_transpose(B)
        return self._prepared.solve(self._checked("B", B), None, primal)

    @property
    def T(self) -> "PreparedSolver":  # noqa: N802
        """The same factors, prepared for the transpose; of ``direct`` alone."""
        method, A, arguments = self._made_of
        if not hasattr(self._prepared, "T"):
            raise AttributeError(_solver_words.transpose_of_prepared(self.name))
        return PreparedSolver(method, A.T, arguments, self._prepared.T)

    def preconditioner(self) -> Preconditioner:
        """The factors as ``M``.

        Raises
        ------
        TypeError
            If it is not ``direct`` that has prepared: a method of steps is no linear map.
        """
        if not hasattr(self._prepared, "preconditioner"):
            raise TypeError(_solver_words.not_m(self))
        A = self._made_of[1]
        M: Preconditioner = self._prepared.preconditioner(A.dtype, A.device)
        return M

    def _checked(self, name: str, B: Any) -> Tensor:
        B, n = widened(B), None if self._shape is None else self._shape[0]
        _checks.check_rhs(B, B.shape[0] if n is None and isinstance(B, Tensor) and B.dim() else n or 0, None, name)
        _checks.check_dtype(name, B)
        if (B.requires_grad and torch.is_grad_enabled()) or forward_ad.unpack_dual(B).tangent is not None:
            raise TypeError(_solver_words.differentiated_prepared(self.name, name))
        if self._dtype is None:
            return B.detach()
        common = torch.promote_types(self._dtype, B.dtype)
        if common != self._dtype:
            raise TypeError(_solver_words.dtype_of_prepared(self.name, name, self._dtype, B.dtype, common))
        return B.detach().to(common)

    def __reduce__(self) -> tuple[Any, ...]:
        return PreparedSolver, self._made_of

    def __repr__(self) -> str:
        return f"<{self.name} prepared for a matrix of shape {self._shape}, dtype {self._dtype}>"


class Method(MethodBase[P, Tensor]):
    """A solution method, such as :data:`tsgu.linear_cg`.

    Calling it solves, with gradients. Given as ``solve=`` or ``transpose_solve=`` it is prepared once in the forward
    pass, and what was prepared serves the adjoint.
    """

    def __init__(
        self,
        function: Callable[P, Tensor],
        prepare: Callable[[Any, Mapping[str, Any]], Prepared],
        *,
        settings: type[Settings] | None,
        hermitian: bool,
        rectangular: bool = False,
        prepare_batch: Callable[[Pattern, Tensor, Mapping[str, Any]], Prepared] | None = None,
    ) -> None:
        super().__init__(function, settings=settings, hermitian=hermitian, rectangular=rectangular)
        self._prepare = prepare
        self.prepare_batch = prepare_batch

    def prepare(self, A: Any, **kwargs: Any) -> Any:
        """Prepare for one matrix, to be solved with again and again.

        Parameters
        ----------
        A : Tensor (sparse COO or CSR) or SparseMatrix, shape (n, n)
            Cut from the graph.
        **kwargs
            Of the method.

        Returns
        -------
        PreparedSolver
            With ``solve(B)`` and ``solve_transpose(G)``, which are not differentiated; to be given as ``solve=`` where
            they are to be.

        Raises
        ------
        ValueError, TypeError
            As the method itself.

        Examples
        --------
        >>> import torch, tsgu
        >>> A = torch.tensor([[2.0, 1.0], [0.0, 4.0]], dtype=torch.float64).to_sparse()
        >>> factors = tsgu.direct.prepare(A)
        >>> factors.solve(torch.tensor([4.0, 8.0], dtype=torch.float64))
        tensor([1., 2.], dtype=torch.float64)
        >>> b = torch.tensor([4.0, 8.0], dtype=torch.float64, requires_grad=True)
        >>> tsgu.sparse_generic_solve(A, b, solve=factors).sum().backward()
        >>> b.grad
        tensor([0.5000, 0.1250], dtype=torch.float64)
        """
        A = widened(A)
        A = SparseMatrix.from_tensor(A.detach()) if isinstance(A, Tensor) else A
        if isinstance(A, SparseMatrix):
            _checks.check_preparable(A, self.rectangular)
        arguments = {name: _kept(value) for name, value in self.arguments(kwargs).items()}
        A = _kept(A)
        return self.prepared(A, **arguments) if self.rectangular else PreparedSolver(self, A, arguments)

    @uncast
    def prepared_batch(self, pattern: Pattern, values: Tensor, arguments: Mapping[str, Any]) -> Prepared:
        """The same for values of shape (batch, nnz), and right-hand sides of shape (batch, n) or (batch, n, k)."""
        assert self.prepare_batch is not None
        return self.prepare_batch(pattern, values, self.arguments(arguments))

    @uncast
    def prepared(self, A: Any, **kwargs: Any) -> Prepared:
        """The same for a SparseMatrix or a callable, without checks of what is solved."""
        return self._prepare(A, self.arguments(kwargs))


def _kept(given: Any) -> Any:
    """A copy of a matrix, cut from the graph: an optimiser changes the values of a parameter in place."""
    if isinstance(given, SparseMatrix):
        return given.with_values(given.values.detach().clone())
    return given.detach().clone() if isinstance(given, Tensor) else given
