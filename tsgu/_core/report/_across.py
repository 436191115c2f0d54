"""The words for what belongs to the other framework."""

from tsgu._core._kinds import name_of


def of_the_other_framework(name: str, solver: str, ours: str, theirs: str, got: object) -> str:
    return (
        f"{name} must be something that {ours} can compute with for {solver}: a matrix, or a preconditioner or a "
        f"function of {ours}; got {type(got).__name__} of {theirs}. Build it with the precond of that package, of "
        "the matrix converted by tsgu_jax.interop."
    )


def solver_in_the_wrong_place(solver: str, ours: str, got: str) -> str:
    return (
        f"A and B must be of {ours} for {solver}, which is a solver for it; got {got}. Use the solver that it was made "
        "of itself, or convert A and B by tsgu_jax.interop."
    )


def method_of_the_other_package(name: str, method: object, package: str) -> str:
    """Empty where it is not one."""
    home = type(method).__module__.split(".")[0]
    if home == package or home not in ("tsgu", "tsgu_jax") or type(method).__name__ != "Method":
        return ""
    of, across = ("torch", "torch_solver") if home == "tsgu" else ("JAX", "jax_solver")
    return (
        f"{name} must be a method of {package}, or a callable for its matrices; got {name_of(method)} of {home}, which "
        f"is for {of}. Use {package}.{name_of(method)}, or tsgu_jax.interop.{across}({home}.{name_of(method)})."
    )
