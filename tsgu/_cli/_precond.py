"""The preconditioner that was asked for, built by the module ``precond`` of either package."""

from typing import Any, NamedTuple

from tsgu._cli._errors import CommandError, reason
from tsgu._core.methods import _registry

PRECONDITIONERS = tuple(each.name for each in _registry.PRECONDITIONERS)


class Precond(NamedTuple):
    """What was asked for: a name, and the rows of a block for ``block_jacobi``."""

    name: str
    block: int


def build(namespace: Any, A: Any, asked: Precond, complex_: bool) -> Any:
    """M for a method.

    Raises
    ------
    CommandError
        If A does not have such a preconditioner, or a library is missing.
    """
    name, block = asked
    options: dict[str, Any] = {}
    if name == "block_jacobi":
        options["block"] = block
    if name == "amg" and complex_:
        options["kind"] = "smoothed_aggregation"  # the default is for real matrices
    try:
        return getattr(namespace, name)(A, **options)
    except (ImportError, TypeError, ValueError) as error:
        raise CommandError(f"argument --precond: {reason(error)}") from error
