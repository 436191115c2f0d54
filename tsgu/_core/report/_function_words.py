"""The words about a matrix given as a function; see :mod:`tsgu._core.report._wording`."""

from collections.abc import Sequence

from tsgu._core.report._wording import CONVENTIONS, GRADIENTS


def transpose_of_a(method: str, why: str) -> str:
    return (
        f"A must have a transpose where {method} is differentiated; got a callable without .T{_derived(why)}. "
        f"Give A as a sparse matrix, or as an object with __call__ and .T.{GRADIENTS}"
    )


def _derived(why: str) -> str:
    return f", whose transpose cannot be derived ({why})" if why else ""


def closed_over(why: str) -> str:
    return (
        "A, given as a function, must be transposable where what it closes over is differentiated; got one whose "
        f"transpose cannot be derived ({why}). Write it with operations that have a derivative.{GRADIENTS}"
    )


def result_of_function(name: str, shape: str, dtype: str, got: str) -> str:
    return (
        f"{name} must return what it is given, here shape {shape} and dtype {dtype}, times a square matrix; got {got}."
        f"{CONVENTIONS}"
    )


def not_linear() -> str:
    return (
        "A must be linear, column by column, as a function; got one for which A(c v) is not c A(v), tried with one "
        "vector v and one number c for each column. Return the product with a matrix alone, without terms that are "
        "constant or nonlinear; a vector of two dimensions is no block of columns, and goes in flat, or in JAX as the "
        f"pytree (B,). verify=None leaves this untried.{CONVENTIONS}"
    )


def non_finite_function() -> str:
    return (
        "A must map finite vectors to finite ones as a function; got NaN or infinity for a vector of moderate numbers. "
        "Look at what the function closes over."
    )


def writes_to_its_argument(name: str) -> str:
    return (
        f"{name} must leave its argument as it is, as a function; got one that writes to it. Compute with a copy, or "
        f"with operations that are not in place.{CONVENTIONS}"
    )


def function_under_transform(name: str) -> str:
    return (
        f"{name} must not close over tensors that torch.func transforms, nor over any that require grad inside of its "
        "transforms, as a function; got one that does. Differentiate by backward() or torch.autograd.grad, detach what "
        f"the function closes over, or give A as a SparseMatrix.{GRADIENTS}"
    )


def changed_function() -> str:
    return (
        "A must be the same function in the backward pass as in the forward pass; got another result for the same "
        "vector. What it closes over was changed or bound to something else in between: a variable of a loop, a tensor "
        f"written to in place. Bind it, for example by functools.partial, or call backward() before.{GRADIENTS}"
    )


def leaves(got: Sequence[str]) -> str:
    kinds = ", ".join(got) or "none"
    return f"B must have leaves, all of one dtype, as a pytree; got {kinds}. Convert them to one.{CONVENTIONS}"


def structure(name: str, expected: object, got: object) -> str:
    return f"{name} must have the structure and the shapes of B, {expected}; got {got}."
