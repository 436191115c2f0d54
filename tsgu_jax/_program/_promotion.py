"""JAX may be told to refuse mixed dtypes or ranks in the user's own code; what the package does is its own business."""

from collections.abc import Callable
from contextlib import ExitStack
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import jax

P = ParamSpec("P")
T = TypeVar("T")


def as_usual(function: Callable[P, T]) -> Callable[P, T]:
    """The function in which, whatever the user has set, dtypes and ranks are promoted as JAX does by default.

    For what a user calls, and for the rules of derivatives and batches, which JAX calls later. In every column of a
    block a method scales a vector by a number of its own, (n, k) by (k,): that is what promotion of ranks is for.
    """

    @wraps(function)
    def promoting(*args: P.args, **kwargs: P.kwargs) -> T:
        found: Any = jax.config  # as it is in this thread
        with ExitStack() as settings:
            if found.jax_numpy_dtype_promotion != "standard":
                settings.enter_context(jax.numpy_dtype_promotion("standard"))
            if found.jax_numpy_rank_promotion != "allow":
                settings.enter_context(jax.numpy_rank_promotion("allow"))
            return function(*args, **kwargs)

    return promoting
