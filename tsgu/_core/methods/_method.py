"""What a method is in both packages: a function with a name and arguments, which can be copied and pickled."""

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any, Generic, ParamSpec, TypeVar

from tsgu._core.methods._options import Settings, check_keywords, resolve_settings

P = ParamSpec("P")
R = TypeVar("R")


class MethodBase(Generic[P, R]):
    """The part of a method that knows no framework.

    Parameters
    ----------
    function : callable
        What the user calls, documented; its keyword-only parameters are the arguments of the method.
    settings : type or None
        Of the settings object that the method accepts.
    hermitian, rectangular : bool
        Whether A must be Hermitian; whether the method minimises ``||A X - B||`` for rectangular A.
    """

    def __init__(
        self, function: Callable[P, R], *, settings: type[Settings] | None, hermitian: bool, rectangular: bool
    ) -> None:
        functools.update_wrapper(self, function)
        self._function = function
        self.settings, self.hermitian, self.rectangular = settings, hermitian, rectangular
        parameters = inspect.signature(function).parameters.values()
        keywords = {p.name for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY}
        self._keywords = frozenset(keywords - {"on_failure", "return_info"})  # which are the caller's
        self.name = function.__name__

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        return self._function(*args, **kwargs)

    @property
    def starts(self) -> bool:
        """Whether it takes a start x0."""
        return "x0" in self._keywords

    def arguments(self, kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """The keyword arguments checked, those left at None removed, and ``settings`` resolved."""
        check_keywords(self.name, kwargs, self._keywords)
        return resolve_settings(self.name, {k: v for k, v in kwargs.items() if v is not None}, self.settings)

    def __reduce__(self) -> str:
        return self.name  # under which its module has it: so a module or settings that hold it can be saved and copied

    def __repr__(self) -> str:
        return f"<method {self.__module__.split('.')[0]}.{self.name}>"
