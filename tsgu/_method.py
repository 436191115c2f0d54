"""A solution method of the package: callable on its own, and something that can be prepared for one matrix."""

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any, Generic, ParamSpec, Protocol

from torch import Tensor
from torch.overrides import handle_torch_function, has_torch_function_variadic

from tsgu._core import _wording
from tsgu._core._options import Settings, check_keywords, resolve_settings
from tsgu._matrix import SparseMatrix

P = ParamSpec("P")


class Prepared(Protocol):
    """A method made ready for one matrix."""

    def solve(self, B: Tensor, x0: Tensor | None = None) -> Tensor:
        """X with A X = B."""

    def solve_transpose(self, G: Tensor) -> Tensor:
        """Y with A^T Y = G."""


class Method(Generic[P]):
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
    ) -> None:
        functools.update_wrapper(self, function)
        self._function = function
        self._prepare = prepare
        self._settings = settings
        self._hermitian = hermitian
        self.rectangular = rectangular  # whether it minimises ||A X - B|| for rectangular A
        parameters = inspect.signature(function).parameters.values()
        self._keywords = frozenset(p.name for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY)
        self.name = function.__name__

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Tensor:
        return self._function(*args, **kwargs)

    def prepare(self, A: Any, **kwargs: Any) -> Prepared:
        """Make ready for one matrix: ``.solve(B)`` and ``.solve_transpose(G)`` of the result are not differentiated."""
        if isinstance(A, Tensor):
            A = SparseMatrix.from_tensor(A.detach())
        return self._prepare(A, self.arguments(kwargs))

    def arguments(self, kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """The keyword arguments checked, those left at None removed, and ``settings`` resolved."""
        check_keywords(self.name, kwargs, self._keywords)
        return resolve_settings(self.name, {k: v for k, v in kwargs.items() if v is not None}, self._settings)

    def check_adjoint(self, kwargs: Mapping[str, Any]) -> None:
        """Refuse a preconditioner that the adjoint cannot transpose."""
        M = self.arguments(kwargs).get("M")
        known = self._hermitian or M is None or isinstance(M, Tensor)  # asking a CSR tensor for .T raises
        if not known and not hasattr(M, "T"):
            raise TypeError(_wording.transpose_of_m(self.name))

    def __repr__(self) -> str:
        return f"<method {self.__module__.split('.')[0]}.{self.name}>"


def call(method: "Method[Any]", A: Any, B: Tensor, **kwargs: Any) -> Tensor:
    """What a method does when it is called on its own: the differentiable solve."""
    if has_torch_function_variadic(A, B):
        return handle_torch_function(method, (A, B), A, B, **kwargs)
    from tsgu._solve import differentiable  # the frontend knows the methods, whose default is one of them

    return differentiable(A, B, method, None, None, kwargs)
