"""What ``torch.autocast`` is to leave alone: a solve runs in the dtype of its inputs.

Autocast would multiply in bfloat16 inside a solve, and return that beside vectors in single precision. As for the
functions of ``torch.linalg``, inputs that it has already made half precision of are solved with in single precision,
and their gradients come back in half precision.
"""

import functools
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import torch

from tsgu._matrix import _internals

P = ParamSpec("P")
R = TypeVar("R")

_HALF = (torch.float16, torch.bfloat16)


def uncast(function: Callable[P, R]) -> Callable[P, R]:
    """The function, whose operations keep their dtypes."""

    @functools.wraps(function)
    def called(*args: P.args, **kwargs: P.kwargs) -> R:
        with _internals.without_autocast():
            return function(*args, **kwargs)

    return called


def widened(x: Any) -> Any:
    """Under autocast a tensor or a SparseMatrix of half precision in single; anything else as it is."""
    if _internals.is_autocast() and getattr(x, "dtype", None) in _HALF:
        return x.to(torch.float32)
    return x
