"""What ``torch.compile`` is to leave alone."""

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import torch

P = ParamSpec("P")
R = TypeVar("R")


def uncompiled(function: Callable[P, R]) -> Callable[P, R]:
    """The function as it is, where ``torch.compile`` compiles what calls it too.

    It would trace the loops of a solve step by step, guard on their numbers, and run them ten times slower than Python
    does. ``torch.compiler.disable`` as a decorator would import the compiler, which takes a second, together with the
    package.
    """

    @functools.wraps(function)
    def called(*args: P.args, **kwargs: P.kwargs) -> R:
        if torch.compiler.is_compiling():
            plain: Callable[P, R] = torch.compiler.disable(function)
            return plain(*args, **kwargs)
        return function(*args, **kwargs)

    return called
