"""A solution method of the package: callable on its own, configured by arguments, and prepared for a matrix."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ParamSpec, Protocol

import jax
import jax.numpy as jnp
from jax import Array
from jax.tree_util import register_pytree_node_class

from tsgu._core.methods._method import MethodBase
from tsgu._core.methods._options import Settings
from tsgu._core.report import _solver_words, _wording
from tsgu._core.report._failure import policy_of
from tsgu._core.report._log import recording
from tsgu_jax._matrix import _checks
from tsgu_jax._matrix._autodiff import refusing
from tsgu_jax._matrix._sparse_matrix import SparseMatrix
from tsgu_jax._program import _report
from tsgu_jax._program._outcome import Member, Outcome
from tsgu_jax._program._promotion import as_usual
from tsgu_jax._program._report import Evidence, Label
from tsgu_jax.precond._base import Preconditioner

P = ParamSpec("P")


class Prepared(Protocol):
    """A method prepared for one matrix; it says what became of a solve, and leaves the reporting to others."""

    @property
    def refusal(self) -> str | None:
        """Why the system cannot be differentiated, if so."""

    @property
    def atol(self) -> Any:
        """The absolute tolerance that the user gave, for the user's own B alone; None for zero."""

    @property
    def evidence(self) -> Evidence | None:
        """The matrix, where the host may see in it why the method fails."""

    def solve(self, B: Array, x0: Array | None, atol: Any = None) -> tuple[Array, Outcome]:
        """X with A X = B; ``atol`` is None or zero where B is not the user's own."""

    def solve_transpose(self, G: Array) -> tuple[Array, Outcome]:
        """Y with A^T Y = G, as the adjoint needs it."""


class Configured(Protocol):
    """A method with its arguments resolved: a pytree whose arrays are arguments of a compiled program."""

    @property
    def name(self) -> str: ...

    def prepare(self, matrix: Any) -> Prepared:
        """Prepare for a SparseMatrix, or for a callable."""


class Method(MethodBase[P, Array]):
    """A solution method, such as :data:`tsgu_jax.linear_cg`.

    Calling it solves, with gradients. Given as ``solve=`` or ``transpose_solve=`` it is prepared once in the forward
    pass, and what was prepared serves the adjoint.
    """

    def __init__(
        self,
        function: Callable[P, Array],
        configure: Callable[[Mapping[str, Any], int, Any, Any], Configured],
        *,
        settings: type[Settings] | None,
        hermitian: bool,
        rectangular: bool = False,
    ) -> None:
        super().__init__(function, settings=settings, hermitian=hermitian, rectangular=rectangular)
        self._configure = configure

    @as_usual
    def prepare(self, A: Any, **kwargs: Any) -> Reporting:
        """Prepare for one matrix: ``.solve(B)`` and ``.solve_transpose(G)`` of the result are not differentiated."""
        A = A._settled() if isinstance(A, SparseMatrix) else SparseMatrix.from_bcoo(A)
        _checks.check_preparable(A, self.rectangular)
        prepared = self.configure(kwargs, A.shape[-1], A.dtype, A).prepare(A)
        return (
            Reporting(self.name, prepared) if self.rectangular else PreparedSolver(self.name, A, prepared, self.starts)
        )

    def configure(self, kwargs: Mapping[str, Any], n: int, dtype: Any, matrix: Any) -> Configured:
        """The arguments checked and resolved for n unknowns; ``matrix``, where there is one, to be looked at."""
        return self._configure(self.arguments(kwargs), n, dtype, matrix)


class Reporting:
    """A prepared method whose solves report what became of them, and return X alone."""

    def __init__(self, name: str, prepared: Prepared, member: Member | None = None, policy: str | None = None) -> None:
        self.name, self.prepared, self._member, self._policy = name, prepared, member, policy

    @property
    def refusal(self) -> str | None:
        return self.prepared.refusal

    @as_usual
    def solve(self, B: Array, x0: Array | None = None) -> Array:
        """X with A X = B."""
        return self.reported(False, *self.prepared.solve(B, x0, self.prepared.atol))

    @as_usual
    def solve_transpose(self, G: Array) -> Array:
        """Y with A^T Y = G."""
        return self.reported(True, *self.prepared.solve_transpose(G))

    def __repr__(self) -> str:
        return f"<{self.name} prepared>"

    def reported(self, transposed: bool, x: Array, outcome: Outcome) -> Array:
        """X, once it is said what became of it, as the user wants it where it failed."""
        policy = policy_of(self._policy)
        label = Label(self.name, transposed, recording(), policy == "warn")
        return _report.settled(label, policy, x, outcome._replace(member=self._member), self.prepared.evidence)


@register_pytree_node_class
class PreparedSolver(Reporting):
    """A method prepared for one matrix, as :meth:`Method.prepare` returns it: to be called, or given as ``solve=``.

    Its solves are not differentiated. Given to :func:`tsgu_jax.solve` it serves the forward and the adjoint solve of
    the same matrix, as often as that is solved with.

    What ``direct`` has prepared, and its transpose ``.T``, may also be given as ``M`` to a Krylov method for another
    matrix. There the factors precondition: they are not judged, and the solution is that of the method.
    """

    def __init__(self, name: str, A: SparseMatrix, prepared: Prepared, starts: bool) -> None:
        super().__init__(name, prepared)
        self._matrix, self._starts = A, starts

    @as_usual
    def solve(self, B: Array, x0: Array | None = None) -> Array:
        """X with A X = B, for B of shape (n,) or (n, k), from x0, which ``direct`` and ``auto`` do not take."""
        if x0 is not None and not self._starts:
            raise TypeError(_solver_words.no_start(self.name))
        B = self._by_hand("B", B)
        if B.size == 0:
            return B
        x0 = None if x0 is None else _checks.start(x0, B)
        return self.reported(False, *_compiled(self.prepared, B, x0, self.prepared.atol, False))

    @as_usual
    def solve_transpose(self, G: Array) -> Array:
        """Y with A^T Y = G, for G of shape (n,) or (n, k), to ``rtol`` alone: ``atol`` is in the units of B."""
        G = self._by_hand("G", G)
        return G if G.size == 0 else self.reported(True, *_compiled(self.prepared, G, None, None, True))

    @as_usual
    def outcome(self, B: Array, atol: Any, transposed: bool) -> tuple[Array, Outcome]:
        """The same inside the gradient rule, which does not differentiate it and reports what came of it."""
        return _solved(self.prepared, self._checked("B", B), None, atol, transposed)

    @property
    def T(self) -> PreparedSolver:  # noqa: N802
        """The same factors, prepared for the transpose; of ``direct`` alone."""
        prepared: Any = self.prepared
        if not hasattr(prepared, "T"):
            raise AttributeError(_solver_words.transpose_of_prepared(self.name))
        return PreparedSolver(self.name, self._matrix.T, prepared.T, self._starts)

    @property
    def preconditioner(self) -> Preconditioner:
        """The factors as ``M``.

        Raises
        ------
        TypeError
            If it is not ``direct`` that has prepared: a method of steps is no linear map.
        """
        if not hasattr(self.prepared, "preconditioner"):
            raise TypeError(_solver_words.not_m(self))
        M: Preconditioner = self.prepared.preconditioner
        return M

    def _checked(self, name: str, B: Any) -> Array:
        _checks.check_rhs(B, self._matrix.shape[0], None, name)
        _checks.check_dtype(name, B)
        own, B = self._matrix.dtype, _checks.as_array(name, B)
        common = jnp.promote_types(own, B.dtype)
        if common != own:
            raise TypeError(_solver_words.dtype_of_prepared(self.name, name, own, B.dtype, common))
        return B.astype(own)

    def _by_hand(self, name: str, B: Any) -> Array:
        """Checked, and refusing derivatives: the host's callback has none, and would pass for a constant."""
        message = _solver_words.differentiated_prepared_in_jax(self.name)
        plain: Array = refusing(message, (self._checked(name, B), self._matrix.values))[0]
        return plain

    def tree_flatten(self) -> tuple[tuple[Prepared, SparseMatrix], tuple[str, bool]]:
        return (self.prepared, self._matrix), (self.name, self._starts)

    @classmethod
    def tree_unflatten(cls, aux: tuple[str, bool], children: tuple[Prepared, SparseMatrix]) -> PreparedSolver:
        return cls(aux[0], children[1], children[0], aux[1])

    def __repr__(self) -> str:
        if not _checks.is_like_array(self._matrix.values):
            return super().__repr__()
        return f"<{self.name} prepared for a matrix of shape {self._matrix.shape}, dtype {self._matrix.dtype}>"


def _solved(prepared: Prepared, B: Array, x0: Array | None, atol: Any, transposed: bool) -> tuple[Array, Outcome]:
    return prepared.solve_transpose(B) if transposed else prepared.solve(B, x0, atol)


_compiled = jax.jit(_solved, static_argnames="transposed")
"""Compiled once for each structure, like the solves of the frontend: what is prepared is an argument."""


def refuse_callable(name: str, A: Any) -> None:
    """For a method that needs the entries of A."""
    if not isinstance(A, SparseMatrix):
        raise TypeError(_wording.not_a("A", f"a BCOO, a BCSR or a SparseMatrix for {name}, which factors it", A))
