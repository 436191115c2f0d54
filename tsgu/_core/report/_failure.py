"""What is done where a solve fails: the choice of the user, as an argument or for a block."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from tsgu._core.report import _wording

POLICIES = ("warn", "nan", "ignore")

_of_block: ContextVar[str] = ContextVar("on_failure", default="warn")


@contextmanager
def on_failure(policy: str) -> Iterator[None]:
    """Choose what is done inside the block where a solve fails.

    A solve that is given ``on_failure=`` as an argument goes by that. The choice is made when a solve is called, in JAX
    when it is traced, and holds for its adjoint and every other derivative, wherever those are computed.

    Parameters
    ----------
    policy : {"warn", "nan", "ignore"}
        - ``"warn"``, the default: a :class:`ConvergenceWarning` tells which solve failed, and the best that was found
          is returned. In PyTorch, outside of batches, a singular matrix is a ``torch.linalg.LinAlgError``.
        - ``"nan"``: the columns that failed are NaN, of the solution and of each derivative, and nobody is told. A
          column of an adjoint solve that failed makes the whole gradient of A NaN, which is a sum over columns.
        - ``"ignore"``: what was found is returned as it is, and nobody is told; NaN for a singular matrix.

        With the last two, compiled programs of JAX do not call the host on account of a failure.

    Raises
    ------
    ValueError
        If it is another word.

    Examples
    --------
    >>> import torch, tsgu
    >>> A = torch.tensor([[4.0, 1.0], [1.0, 3.0]]).to_sparse()
    >>> with tsgu.on_failure("nan"):
    ...     tsgu.linear_cg(A, torch.ones(2), maxiter=1)
    tensor([nan, nan])
    """
    token = _of_block.set(policy_of(policy))
    try:
        yield
    finally:
        _of_block.reset(token)


def policy_of(given: Any) -> str:
    """The policy given, or that of the block where it is None.

    Raises
    ------
    ValueError
        If there is no such policy.
    """
    if given is None:
        return _of_block.get()
    if given not in POLICIES:
        raise ValueError(_wording.not_one_of("on_failure", POLICIES, given))
    return given
