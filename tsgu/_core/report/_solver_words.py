"""The words about solvers, what was prepared, and preconditioners; see :mod:`tsgu._core.report._wording`."""

from collections.abc import Sequence

from tsgu._core._kinds import described, name_of
from tsgu._core.report._function_words import _derived
from tsgu._core.report._wording import CONVENTIONS, GRADIENTS, METHODS, not_a


def damp_of_another(method: str) -> str:
    return (
        f"damp must be zero unless lsmr solves both systems, since the gradient depends on it; got it for {method}. "
        "Stack damp times the identity below A, and zeros below B."
    )


def not_for_rectangular(name: str, method: str) -> str:
    return f"{name} must be lsmr, or a least-squares solver from outside; got {method}, which solves square systems."


def atol_across(name: str, method: str) -> str:
    return (
        f"atol must be zero for {name}, whose solves for derivatives would stop at it too; "
        f"use rtol, or tsgu_jax.{method}, which keeps atol to the forward solve."
    )


def damp_in_a_solve() -> str:
    return "damp must be zero where lsmr solves a square system; use it in sparse_generic_lstsq (in JAX: lstsq)."


def not_a_solver(name: str, got: object, meant: str) -> str:
    """``meant`` is a method as the user would write it, where the name of one arrived."""
    remedy = f" Pass the method itself, like {name}={meant}." if isinstance(got, str) else ""
    accepted = "a callable (A, B, **kwargs) -> X"
    if "lstsq" not in name:
        accepted += ", an object with prepare(A), one with solve and solve_transpose"
    return f"{name} must be {accepted}, or None; got {described(got)}.{remedy}{METHODS}"


def preconditioner_as_solver(name: str, got: object, package: str = "tsgu") -> str:
    return (
        f"{name} must be a solver; got the preconditioner {name_of(got).lower()}. Give it to a Krylov method, like "
        f"solve={package}.gmres, M=M.{METHODS}"
    )


def not_m(got: object) -> str:
    accepted = "a matrix or a callable r -> M r that approximates the inverse of A, or what direct.prepare returned"
    return not_a("M", accepted, got) + METHODS


def given_twice(name: str, one: object, other: object) -> str:
    return (
        f"{name} must be the same in both partials, since arguments are for both solves; got {one!r} and {other!r}. "
        "Pass it beside the methods."
    )


def transpose_of_prepared(name: str) -> str:
    return f"T must be asked of what direct.prepare returned; got {name} prepared. Prepare {name} for A.T."


def recipe_for_a_function(name: str) -> str:
    return (
        f"A must be a sparse matrix where M is the recipe {name}, which is built of it; got a function. Build M first."
    )


def recipe_in_jax(name: str) -> str:
    return (
        f"M must be built in JAX; got the recipe {name}. Give M={name}(A), built outside of jit, and refresh it for "
        "other values, traced ones too: M.refresh(A)."
    )


def no_start(name: str) -> str:
    return f"x0 must be None for {name}, which does not start from anywhere; got a start. Use a Krylov method for that."


def arguments_of_prepared(name: str, given: Sequence[str]) -> str:
    return (
        f"{name} must have its arguments before it is prepared; got {', '.join(given)} beside a prepared solver. "
        "Pass them to prepare."
    )


def differentiated_prepared(name: str, argument: str) -> str:
    return (
        f"{argument} must not require grad in a solve with {name} prepared, which is not differentiated; got one that "
        "does, or that has a tangent. Pass the prepared object as solve= to sparse_generic_solve, or detach "
        f"{argument}.{GRADIENTS}"
    )


def differentiated_prepared_in_jax(name: str) -> str:
    return (
        f"A solve with {name} prepared must not be differentiated; got a derivative with respect to its right-hand "
        "side or to the matrix. Pass the prepared object as solve= to tsgu_jax.solve, or cut both by "
        f"jax.lax.stop_gradient.{GRADIENTS}"
    )


def dtype_of_prepared(name: str, argument: str, own: object, got: object, common: object) -> str:
    return (
        f"{argument} must fit {own}, in which {name} was prepared; got {got}. Prepare the matrix in {common}, or "
        f"convert {argument}.{CONVENTIONS}"
    )


def verify(got: object) -> str:
    return f"verify must be a positive number, or None to leave the result unchecked; got {got!r}."


def library(known: tuple[str, ...], got: object) -> str:
    return f"library must be {', '.join(map(repr, known))} or None; got {got!r}."


def result(name: str, expected: str, got: str) -> str:
    return f"{name} must return the solution as {expected}; got {got}."


def transpose_of_m(method: str, why: str = "") -> str:
    return (
        f"M must have a transpose where {method} is differentiated, since the adjoint system needs M.T; got a callable "
        f"without .T{_derived(why)}. Give M as a matrix, or as an object with __call__ and .T.{GRADIENTS}"
    )


def shape_of_m(n: int, got: tuple[int, ...], device: object = None, got_device: object = None) -> str:
    wanted, found = ("", "") if device is None else (f" on {device}", f" on {got_device}")
    return f"M must be a ({n}, {n}) matrix{wanted}, or a callable; got {got}{found}."


def complex_m(got: object) -> str:
    return f"M must be real for a real system; got {got}."


def one_matrix(shape: tuple[int, ...], remedy: str) -> str:
    return f"A must be one matrix, with values of shape (nnz,); got a batch, {shape}. {remedy}"


def refreshed_shape(name: str, n: int, got: tuple[int, ...]) -> str:
    return f"A must have the shape ({n}, {n}) of the matrix that {name} was built for; got {got}. Build {name} for it."


def refreshed_pattern(name: str, nnz: int, got: int) -> str:
    found = f"{got} entries" if got != nnz else "as many in other places"
    return (
        f"A must have the pattern that {name} was built for, with {nnz} entries; got {found}. Store the zeros that may "
        f"become other numbers, or build {name} for the new pattern."
    )


def refreshed_device(name: str, own: object, got: object) -> str:
    return f"A must be on {own}, like the matrix that {name} was built for; got {got}. Bring it there by A.to."


def refreshed_complex(name: str, own: object, got: object) -> str:
    return f"A must be real, like the matrix that {name} was built for in {own}; got {got}. Build {name} for it."


def refreshed_symmetry(name: str) -> str:
    return (
        f"A must be Hermitian, like the matrix that {name} was built for; got one that is not. Build {name} for a "
        "matrix that is not, and refresh that."
    )


def refreshed_range(name: str, smallest: float) -> str:
    return (
        f"A must have diagonals, on all levels, that single precision holds beside its largest entry; got one that is "
        f"{smallest:.0e} of it. Build {name} for this matrix: then its cycles are in double precision."
    )


def dtype_of_cycles(got: str) -> str:
    return f"dtype must be float32, float64 or None, the precision of the cycles of amg; got {got}."


def wide_cycles(own: str, got: str) -> str:
    return f"dtype must be no wider than that of A, {own}; got {got}. Convert A, or leave dtype out."


def refreshed_by(name: str) -> str:
    return f"M must be a preconditioner of precond to be refreshed; got {name}, which has no refresh of its own."


OF_ONE_MEMBER = "Build the preconditioner of one member, or of their mean."


PREPARE_EACH = "Prepare the members one by one."


def exported(name: str) -> str:
    return (
        f"A program for jax.export must do without the host, which {name} calls; got one that does. The Krylov "
        "methods, triangular_solve and lsmr, plain or with jacobi, block_jacobi or amg as M, do without it, under "
        'on_failure="nan" or "ignore", and outside of tsgu_jax.record().'
    )


def partitioned(name: str, devices: int) -> str:
    return (
        f"A and B must be on one device for {name}, which calls the host, or be what jax.shard_map gives to one; got a "
        f"program that JAX partitions over {devices} devices by itself. Solve inside jax.shard_map over all axes of "
        "the mesh, where each device solves for its own columns, or members of a batch; or bring A and B to one device "
        "by jax.device_put."
    )
