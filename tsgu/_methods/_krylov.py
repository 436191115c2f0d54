"""A Krylov method prepared for one matrix: options checked, A converted once, its transpose on demand."""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cached_property
from typing import Any, ParamSpec

from torch import Tensor, finfo

from tsgu._core.factors._kept import Use
from tsgu._core.methods._options import Settings, resolve_options
from tsgu._core.report import _log, _matrix_words, _status, _wording
from tsgu._matrix import _checks
from tsgu._matrix._sparse_matrix import SparseMatrix
from tsgu._methods._loop import Kernel, Watch, solve
from tsgu._rule._function import Function
from tsgu._rule._method import Method
from tsgu._rule._operator import (
    Apply,
    CallableOperator,
    MatrixOperator,
    Operator,
    TransposedCallable,
    preconditioner,
    transposed,
)
from tsgu._rule._recipe import is_recipe, made, name_of

P = ParamSpec("P")


def krylov_method(
    kernel: Kernel, *, hermitian: bool, settings: type[Settings] | None
) -> Callable[[Callable[P, Tensor]], Method[P]]:
    """Make a method of a kernel and the public function that documents it."""

    def decorate(function: Callable[P, Tensor]) -> Method[P]:
        name = function.__name__

        def prepare(A: Any, arguments: Mapping[str, Any]) -> _KrylovSystem:
            return _KrylovSystem(kernel, name, hermitian, A, arguments)

        return Method(function, prepare, settings=settings, hermitian=hermitian)

    return decorate


class _KrylovSystem:
    def __init__(self, kernel: Kernel, name: str, hermitian: bool, A: Any, arguments: Mapping[str, Any]) -> None:
        self._kernel, self._name, self._hermitian = kernel, name, hermitian
        self._arguments = arguments
        if not callable(A) and not isinstance(A, SparseMatrix):
            raise TypeError(_wording.not_a("A", "a sparse matrix or a function v -> A v", A))
        self._operator: Operator
        if isinstance(A, SparseMatrix):
            self._operator = MatrixOperator.scaled(A)
        else:
            self._operator = CallableOperator(A if isinstance(A, Function) else Function(A), name, hermitian)
        self._M = arguments.get("M")
        self._recipe: Use | None = None
        if is_recipe(self._M):
            self._recipe = made(self._M, A)
            self._note = f"M: {name_of(self._M)}, {self._recipe.how}"
            self._M = self._recipe.M

    def solve(self, B: Tensor, x0: Tensor | None = None, primal: bool = True) -> Tensor:
        """X with A X = B."""
        return self._solve(self._operator, self._M, B, x0, transposed=False, primal=primal)

    def solve_transpose(self, G: Tensor) -> Tensor:
        """Y with A^T Y = G."""
        M, forward = self._transposed_preconditioner, self._operator
        assert not isinstance(forward, TransposedCallable)
        return self._solve(forward.transpose, M, G, None, transposed=True, primal=False)

    @cached_property
    def _transposed_preconditioner(self) -> Any:
        if self._M is None:
            return None
        return transposed(self._M, self._hermitian, self._name)

    def _solve(
        self, operator: Operator, M: Any, B: Tensor, x0: Tensor | None, *, transposed: bool, primal: bool
    ) -> Tensor:
        began = time.perf_counter()
        options = resolve_options(self._arguments, B.shape[0], finfo(B.dtype).eps)
        if not primal:  # a cotangent is in other units than B, and may be smaller than atol by any factor
            options = replace(options, atol=0.0)
        if x0 is not None:
            x0 = _checks.start(x0, B)
        apply: Apply = preconditioner(M, B.shape[0], B.dtype, B.device)
        if M is not None and operator.unit != 1:
            apply = _inverse(apply, operator.unit)
        B = B.detach().resolve_conj()
        line = _log.watched()
        watch: Watch | None = None
        if line is not None:
            watch = lambda steps, left: line.step(self._name, transposed, steps, left, options.rtol)  # noqa: E731
        x, columns = solve(self._kernel, operator, apply, M is not None, B, x0, options, watch)
        if isinstance(operator, TransposedCallable):
            columns = operator.judged(x, B, columns, options.rtol)
        info = _status.summarize(self._name, transposed, columns, time.perf_counter() - began)
        if self._recipe is not None:
            info = replace(info, note=self._note)
            if primal and x0 is None:
                self._recipe.judge(info)
        advice = ""
        if info.status not in _status.SOUND:
            if self._hermitian and not operator.is_hermitian:
                advice = _matrix_words.not_hermitian(self._name)
            elif operator.loses_constants:
                advice = _matrix_words.constants_are_lost()
        _log.report(info, options.rtol, advice)
        return x


def _inverse(M: Apply, unit: float) -> Apply:
    """What approximates the inverse of A, for A divided by a unit: half of it before, so that M v does not vanish."""
    half = math.ldexp(1.0, math.frexp(unit)[1] // 2)
    return lambda v: M(v * half) * (unit / half)
