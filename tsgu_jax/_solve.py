"""The differentiable sparse solve."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol, Self

import jax
import jax.numpy as jnp
from jax import Array
from jax.experimental.sparse import BCOO, BCSR, JAXSparse

from tsgu._core.methods._partial import unwrapped
from tsgu._core.report import _wording
from tsgu._core.report._log import recording
from tsgu_jax._matrix import _checks
from tsgu_jax._matrix._pattern import Pattern, data_of, pattern_of
from tsgu_jax._matrix._sparse_matrix import SparseMatrix
from tsgu_jax._methods._minres import minres
from tsgu_jax._program import _internals, _mesh, _report
from tsgu_jax._program._promotion import as_usual
from tsgu_jax._program._report import CODE, Label, Member, Outcome
from tsgu_jax._rule._function import Vectors, trace
from tsgu_jax._rule._method import Method
from tsgu_jax._rule._system import Plan


def solve(
    A: BCOO | BCSR | SparseMatrix,
    B: Any,
    solve: Callable[..., Any] | None = None,
    transpose_solve: Callable[..., Any] | None = None,
    *,
    verify: float | None = 1e-3,
    **kwargs: Any,
) -> Array:
    r"""Solve A X = B for sparse A and dense B, with gradients that keep A's sparsity.

    The gradients follow from the implicit function theorem, whatever solves the system: with upstream gradient G, in
    JAX's convention for complex numbers,

    .. math:: A^T \Lambda = G, \qquad \bar B = \Lambda, \qquad
              \bar A_{ij} = -\sum_k \Lambda_{ik} X_{jk} \text{ at the stored entries } (i, j).

    Parameters
    ----------
    A : BCOO, BCSR, SparseMatrix, or callable, shape (n, n)
        float32, float64, complex64 or complex128. Repeated positions are added, padding entries are ignored. A
        SparseMatrix may hold a batch of values on one pattern, shape (batch, n, n). A function v -> A v is taken as it
        is by the Krylov methods, and by solvers from outside that take one; B may then be a pytree of arrays.
    B : Array, shape (n,) or (n, k); for a batch (batch, n) or (batch, n, k)
        Right-hand sides. Where the dtypes differ, both are promoted, with a warning, and each gradient has the dtype of
        its own input.
    solve : callable, optional
        ``solve(A, B, **kwargs) -> X`` or ``(X, info)``. One of this package's methods (:data:`linear_cg`,
        :data:`minres`, :data:`bicgstab`, :data:`gmres`, :data:`direct`, :data:`auto`), or any other callable, such as
        those of ``jax.scipy.sparse.linalg``, which then receives A in the type given and is not differentiated through.
        MINRES by default, for symmetric (Hermitian) A. A callable with ``prepare(A, **kwargs)`` that returns an object
        with ``solve(B)`` and ``solve_transpose(G)`` is prepared once for the forward and the adjoint solve. What
        ``method.prepare(A)`` returned serves any number of solves with that A; ``verify`` finds out if it was another.
    transpose_solve : callable, optional
        ``transpose_solve(A, G, **kwargs) -> Y`` with A^T Y = G, for the gradients. By default ``solve`` is applied to
        the transpose of A: for a symmetric matrix that is ``solve`` itself, and for any other it is what a right
        gradient needs. A method of this package given here is applied to the transpose too.
    verify : float or None, optional
        Relative residual above which the result of a callable from outside this package is reported; None leaves it
        unchecked. The methods of this package check their own targets. With None, a function A is not tried either.
    **kwargs
        Passed to both solvers; a method of this package refuses those that it does not know. ``x0`` goes to the forward
        solve alone, as does ``atol`` to a method of this package, and a preconditioner ``M`` is transposed for the
        adjoint, as ``M.T``. ``functools.partial(method, **kwargs)`` is the same as ``method`` with these arguments.

    Returns
    -------
    Array
        X, with the shape of B. Differentiable with respect to ``A.data`` (or the values of a SparseMatrix, or what a
        function A closes over) and B, to any order, in both modes, under ``jit``, ``vmap``, ``checkpoint`` and
        ``scan``. The gradient of padding is zero, and repeated entries receive the gradient of their sum.

    Raises
    ------
    ValueError
        If a function A is not linear; if A is not sparse or B not an array; if A is not square or B does not match it;
        outside of compiled functions, if A, B or x0 has entries that are not finite; if an argument is out of range.
    TypeError
        If A is in another format or B is not dense; if a dtype is not supported, or NumPy arrays in double precision
        are given while 64-bit types are turned off; if a solver is not callable or returns something else than the
        solution; if a method does not have a keyword argument; if a preconditioner that cannot be transposed would be
        needed for a derivative.
    ImportError
        If ``direct`` is asked for a library that is not installed.

    Warns
    -----
    ConvergenceWarning
        If a column misses its target, in the forward or in the adjoint solve. Turned into an error it surfaces from
        compiled functions as a ``JaxRuntimeError`` with the same text. A singular A gives NaN and this warning.
    UserWarning
        If A and B have different dtypes.

    See Also
    --------
    record : what each solve did. Under ``jit``, for functions that are first called inside it, and without times.

    References
    ----------
    S. G. Krantz and H. R. Parks, *The Implicit Function Theorem*, Birkhauser 2003; M. B. Giles, *Collected Matrix
    Derivative Results for Forward and Reverse Mode Algorithmic Differentiation*, 2008, section 2.3.1.

    Examples
    --------
    >>> import jax, jax.numpy as jnp, tsgu_jax
    >>> from jax.experimental.sparse import BCOO
    >>> A = BCOO.fromdense(jnp.array([[4.0, -1.0, 0.0], [-1.0, 4.0, 0.0], [0.0, 0.0, 2.0]]))
    >>> b = jnp.array([2.0, 7.0, 3.0])
    >>> tsgu_jax.solve(A, b, solve=tsgu_jax.linear_cg).round(4)
    Array([1. , 2. , 1.5], dtype=float32)

    The gradient has one entry for each that A stores:

    >>> def loss(data):
    ...     return tsgu_jax.solve(BCOO((data, A.indices), shape=A.shape), b, solve=tsgu_jax.direct).sum()
    >>> (12 * jax.jit(jax.grad(loss))(A.data)).round()
    Array([-4., -8., -4., -8., -9.], dtype=float32)
    """
    solve, transpose_solve, kwargs = unwrapped(Method, solve, transpose_solve, kwargs)
    if solve is None and transpose_solve is None:
        solve = minres
    return differentiable(A, B, solve, transpose_solve, verify, kwargs)


@as_usual
def differentiable(
    A: Any,
    B: Any,
    solve: Callable[..., Any] | None,
    transpose_solve: Callable[..., Any] | None,
    verify: float | None,
    kwargs: Mapping[str, Any],
) -> Any:
    """Check, bring A to values on a pattern or to a traced function, and apply the rule."""
    matrix_free = callable(A) and not _checks.is_array(A)
    if matrix_free and not (_checks.is_array(B) or isinstance(B, JAXSparse | SparseMatrix)):
        vectors = Vectors.of(B)
        flat = vectors.function("A", A), vectors.B, solve, transpose_solve, verify, vectors.arguments(kwargs)
        return vectors.unravel(differentiable(*flat))
    if not matrix_free:
        check_system(A, B)
    else:
        _checks.check_rhs(B, B.shape[0] if _checks.is_array(B) and B.ndim else 0, None)
    _checks.check_dtype("B", B)
    plan = Plan(solve, transpose_solve, kwargs, verify)
    plan.check()
    B = _checks.as_array("B", B)
    values, pattern, given = (None, None, A) if matrix_free else decompose(A)
    if values is not None:
        _checks.check_finite("A", values)
        dtype = values.dtype
        values, B = _checks.promote(values, B)
        if not isinstance(given, SparseMatrix) and values.dtype != dtype:
            given = converted(given, values.dtype)
    _checks.check_finite("B", B)
    x0 = None if plan.x0 is None else _checks.start(plan.x0, B)
    _checks.check_finite("x0", x0)
    if B.size == 0:
        return jnp.zeros_like(B)
    one = B.shape if values is None or values.ndim == 1 else B.shape[1:]
    like = jax.ShapeDtypeStruct(one, B.dtype)
    if matrix_free:
        given = trace("A", A, like)
    return run(plan.system(pattern, values, given, like), values, B, x0, plan.is_own)


class Solvable(Protocol):
    """What can be solved with and without the rule: a linear system or a least-squares problem, a pytree."""

    @property
    def name(self) -> str: ...

    @property
    def transposed(self) -> bool:
        """Whether it is the transpose that is solved with."""

    @property
    def members(self) -> int | None:
        """How many there are in a batch that is one system; the outcome then has a leading dimension."""

    def of(self, member: Member) -> Self:
        """The same for one member of a batch."""

    def differentiated(self, values: Any, B: Array, x0: Array | None) -> Array:
        """X by the rule."""

    def primal(self, values: Any, B: Array, x0: Array | None) -> tuple[Array, Outcome]:
        """X alone, for concrete arrays: what became of it comes back as arrays too."""


def run(system: Solvable, values: Array | None, B: Array, x0: Array | None, own: bool) -> Array:
    """Apply the rule; ``own`` where the package's own methods do it all, so that it may compile the whole."""
    found = _mesh.with_automatic_axes(
        lambda system, values, x0, B: run(system, values, B, x0, own), system, values, x0, B
    )
    if found is not None:
        return found
    if not _internals.is_traced(system, values, B, x0):
        began = time.perf_counter()
        primal = _compiled_primal if own else _primal
        x, outcome = primal(system, values, B, x0)
        if not _internals.is_traced(x, outcome):
            _tell(system, outcome, began, values is not None and values.ndim == 2)
            return x
        # Everything given is concrete, but a callable closes over something that is not, or this is the trace of a
        # function for which these are constants.
    rule = _compiled_rule if own else _rule
    return rule(system, values, B, x0, _report.here())


def _rule(system: Solvable, values: Array | None, B: Array, x0: Array | None, place: Any) -> Any:
    with _report.called_from(place):
        system, values, B, x0 = _mesh.alike(system, values, B, x0)
        return _over_batch(lambda system, *given: system.differentiated(*given), system, values, B, x0)


def _primal(system: Solvable, values: Array | None, B: Array, x0: Array | None) -> Any:
    system, values, B, x0 = _mesh.alike(system, values, B, x0)
    return _over_batch(lambda system, *given: system.primal(*given), system, values, B, x0)


def _over_batch(solve: Any, system: Solvable, values: Array | None, B: Array, x0: Array | None) -> Any:
    if values is None or values.ndim == 1:
        return solve(system, values, B, x0)
    size = values.shape[0]

    def one(place: Array, *given: Any) -> Any:
        return solve(system.of(Member(place, size)), *given)

    return jax.vmap(one, in_axes=(0, 0, 0, None if x0 is None else 0))(jnp.arange(size, dtype=jnp.int32), values, B, x0)


_compiled_rule = jax.jit(_rule)
_compiled_primal = jax.jit(_primal)
"""Compiled once for each structure: the arrays of a system, its indices too, are arguments."""


def _tell(system: Solvable, outcome: Outcome, began: float, batched: bool) -> None:
    outcome = jax.device_get(outcome)
    for status, words in (("not linear", _wording.not_linear), ("non-finite matrix", _wording.non_finite_function)):
        if (outcome.code == CODE[status]).any():
            raise ValueError(words())
    seconds = time.perf_counter() - began
    label = Label(system.name, system.transposed, recording())
    batched = batched or system.members is not None
    if not batched:
        _report.tell(label, outcome, seconds)
        return
    size = outcome.code.shape[0]
    for index in range(size):
        member: Outcome = jax.tree.map(lambda a, i=index: a[i], outcome)
        _report.tell(label, member._replace(member=Member(index, size)), seconds)


def check_system(A: Any, B: Any, batches: bool = False) -> None:
    """Layout, shape and dtype, in this order; ``batches`` takes a batch of BCOO or BCSR too."""
    if isinstance(A, SparseMatrix):
        kind, batch = "SparseMatrix", A.shape[0] if len(A.shape) == 3 else None
    else:
        _checks.check_sparse_matrix(A, batches)
        kind, batch = type(A).__name__, A.shape[0] if A.ndim == 3 else None
    _checks.check_rhs_kind(B)
    _checks.check_square(tuple(A.shape), kind)
    _checks.check_rhs(B, A.shape[-1], batch)
    _checks.check_dtype("A", A)


def decompose(A: BCOO | BCSR | SparseMatrix) -> tuple[Array, Pattern, Any]:
    """Differentiable values, the pattern, and the matrix as given."""
    if isinstance(A, SparseMatrix):
        A = A._settled()
        return A.values, A.pattern, A
    pattern = pattern_of(A)
    return pattern.gather(data_of(A)), pattern, A


def converted(A: BCOO | BCSR, dtype: Any) -> BCOO | BCSR:
    leaves, structure = jax.tree.flatten(A)
    return jax.tree.unflatten(structure, [leaves[0].astype(dtype), *leaves[1:]])
