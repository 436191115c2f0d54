"""A method that chooses another one, verifies what it did, and falls back to the next."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from tsgu import precond
from tsgu._core.factors._factorisation import library_for
from tsgu._core.methods import _choice, _registry
from tsgu._core.methods._choice import Candidate
from tsgu._core.methods._options import resolve_options
from tsgu._core.report import _log, _wording
from tsgu._core.report._log import Report
from tsgu._matrix import _products
from tsgu._matrix._sparse_matrix import SparseMatrix
from tsgu._methods import _direct
from tsgu._rule._frontend import call
from tsgu._rule._method import Method, Prepared

_METHODS: dict[str, Method[Any]] = _registry.loaded("tsgu", _registry.krylov())


class _AutoSystem:
    """The candidates for one matrix. The one that worked last goes first: in the adjoint, that of the forward solve."""

    def __init__(self, A: Any, arguments: Mapping[str, Any]) -> None:
        if not isinstance(A, SparseMatrix):
            raise TypeError(_wording.not_a("A", "a sparse tensor or a SparseMatrix for auto, which looks at it", A))
        resolve_options(arguments, A.shape[0], torch.finfo(A.dtype).eps)  # which checks them, whoever solves
        self._matrix, self._arguments = A, arguments
        self._traits = _choice.traits_of(A.pattern.symbolic, _products.host(A.values))
        self._plan = _choice.candidates(self._traits, library_for(None))
        self._known: dict[int, Prepared] = {}
        self._place = 0
        self._failures: list[str] = []

    def solve(self, B: Tensor, x0: Tensor | None = None, primal: bool = True) -> Tensor:
        return self._solve(B, transposed=False, primal=primal)

    def solve_transpose(self, G: Tensor) -> Tensor:
        return self._solve(G, transposed=True, primal=False)

    def _solve(self, B: Tensor, *, transposed: bool, primal: bool) -> Tensor:
        best: tuple[Tensor, Report] | None = None
        while True:
            candidate = self._plan[self._place]
            last = self._place + 1 == len(self._plan)
            try:
                x, report = self._attempt(candidate, last, B, transposed, primal)
            except _NoPreconditionerError as error:
                failure = f"{candidate.name} cannot be built: {error}"
            else:
                final = all(column.status in _choice.FINAL for column in report.info.columns)
                telling = final or (last and report.info.status in _choice.SINGULAR)
                if best is None or telling or _residual(report) <= _residual(best[1]):
                    best = x, report
                if final:
                    break
                failure = f"{candidate.name} ended with {report.info.status} at {_residual(report):.1e}"
                if not last or report is not best[1]:
                    _log.enter(report.info)
            if last:
                break
            self._failures.append(failure)
            self._place += 1
        if best is None:
            raise ValueError(f"A must have a preconditioner for auto; got: {'; '.join([*self._failures, failure])}.")
        x, report = best
        _log.report(*report)
        return x

    def _attempt(
        self, candidate: Candidate, last: bool, B: Tensor, transposed: bool, primal: bool
    ) -> tuple[Tensor, Report]:
        if self._place not in self._known:
            self._known[self._place] = self._prepared(candidate, last)
        prepared = self._known[self._place]
        with _log.set_aside() as reports:
            x = prepared.solve_transpose(B) if transposed else prepared.solve(B, None, primal)
        (report,) = reports
        note = _choice.note(self._traits, self._plan, self._place, self._failures)
        return x, report._replace(info=replace(report.info, method=candidate.name, note=note))

    def _prepared(self, candidate: Candidate, last: bool) -> Prepared:
        arguments = dict(self._arguments)
        if candidate.method == "direct":
            return _direct.DirectSystem(self._matrix, arguments | dict(candidate.options))
        arguments["maxiter"] = candidate.maxiter(arguments.get("maxiter"), last)
        if candidate.precond is not None:
            try:
                arguments["M"] = getattr(precond, candidate.precond)(self._matrix, **dict(candidate.options))
            except ValueError as error:
                raise _NoPreconditionerError(str(error)) from error
        return _METHODS[candidate.method].prepared(self._matrix, **arguments)


class _NoPreconditionerError(Exception):
    """A preconditioner that this matrix does not have."""


def _residual(report: Report) -> float:
    residual = report.info.residual
    return float("inf") if residual is None or residual != residual else residual


def _auto(
    A: Any,
    B: Tensor,
    *,
    rtol: float | None = None,
    atol: float | None = None,
    maxiter: int | None = None,
    on_failure: str | None = None,
    return_info: bool = False,
) -> Any:
    """Solve A X = B by the method that suits A: direct, or a Krylov method with a preconditioner.

    A is looked at: its size, the width of its graph, whether it is Hermitian, the signs of its diagonal and of the
    entries beside it. From that the cost of each candidate is estimated, and the cheapest is tried. Where it misses the
    target within four times its estimate, or has no preconditioner, the next is tried; the residual of the last decides
    what is reported. The adjoint begins with what solved the forward system.

    ===========================================  ==============================================================
    A                                            candidates, the cheapest first, ``direct`` ending the list
    ===========================================  ==============================================================
    at most 2000 unknowns                        ``direct``
    Hermitian, diagonal of one sign              ``linear_cg`` with ``jacobi`` or ``amg``, ``minres``, ``direct``
    Hermitian otherwise                          ``minres``, ``direct``
    any other                                    ``bicgstab`` with ``jacobi`` or ``amg``, ``direct``, ``gmres`` with
                                                 ``ilu``
    ===========================================  ==============================================================

    ``amg`` takes part where PyAMG is installed, and is classical for real matrices whose off-diagonal entries have the
    sign opposite to the diagonal. ``direct`` is left out where its factors would be too large. ``jacobi`` is the
    cheapest on a graph of small diameter, as a grid in three dimensions; ``direct`` on a narrow one.

    Parameters
    ----------
    A : Tensor (sparse COO or CSR) or SparseMatrix, shape (n, n)
        float32, float64, complex64 or complex128; any nonsingular matrix.
    B : Tensor, shape (n,) or (n, k)
        Right-hand sides.
    rtol, atol : float, optional
        Stop when ``||b - A x|| <= max(rtol ||b||, atol)``, in the 2-norm of the true residual; 1e-8 in double and 1e-5
        in single precision, and 0. ``atol`` is in the units of B, and not used for derivatives, which go by ``rtol``.
    maxiter : int, optional
        Largest number of steps of each candidate; by default 10 n for the last one.
    on_failure : {"warn", "nan", "ignore"}, optional
        What is done where a column misses its target: see :func:`on_failure`.
    return_info : bool
        Whether to return ``(X, info)``, with the :class:`Info` of the forward solve.

    Returns
    -------
    Tensor
        X, with the shape, dtype and device of B; differentiable with respect to A and B, to any order (a sparse tensor
        A: to second order, in reverse mode).

    Raises
    ------
    torch.linalg.LinAlgError
        If A is factored and singular, exactly or to working precision. Not for the member of a batch: its X is NaN.
    ValueError, TypeError
        As :func:`sparse_generic_solve`; and for an argument out of range.

    Warns
    -----
    ConvergenceWarning
        If no candidate meets the target, here or in the adjoint.

    See Also
    --------
    record : its log tells what was chosen, in ``method``, and why, in ``note``.

    References
    ----------
    Y. Saad, *Iterative Methods for Sparse Linear Systems*, 2nd ed., SIAM 2003, chapters 9 and 10; A. George, SIAM J.
    Numer. Anal. 10 (1973), 345-363, for the work of a factorisation.

    Examples
    --------
    >>> import torch, tsgu
    >>> A = torch.tensor([[4.0, 1.0], [1.0, 3.0]], dtype=torch.float64).to_sparse()
    >>> with tsgu.record() as log:
    ...     x = tsgu.auto(A, torch.tensor([1.0, 2.0], dtype=torch.float64))
    >>> x
    tensor([0.0909, 0.6364], dtype=torch.float64)
    >>> log[0].method
    'direct'
    >>> log[0].note
    'auto: direct for a matrix that is symmetric, positive diagonal, 2 unknowns, width 0; estimated cost ...'
    """
    return call(auto, A, B, rtol=rtol, atol=atol, maxiter=maxiter, on_failure=on_failure, return_info=return_info)


_auto.__name__ = _auto.__qualname__ = "auto"

auto = Method(_auto, _AutoSystem, settings=None, hermitian=False)
