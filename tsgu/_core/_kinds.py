"""What a solver of the user's is: a callable, something to prepare for a matrix, or something prepared."""


def name_of(solver: object) -> str:
    """What a callable is called in reports."""
    name: str = getattr(solver, "__name__", None) or getattr(solver, "name", None) or type(solver).__name__
    return name


def is_prepared(solver: object) -> bool:
    """Whether it solves with one matrix and its transpose, as what ``direct.prepare(A)`` returns."""
    solves = callable(getattr(solver, "solve", None)) and callable(getattr(solver, "solve_transpose", None))
    return solves and not prepares(solver)


def prepares(solver: object) -> bool:
    """Whether it is to be prepared for a matrix first; what comes of it may be the object itself."""
    return callable(getattr(solver, "prepare", None))


def is_solver(solver: object) -> bool:
    """Whether it can be given as ``solve=``."""
    return callable(solver) or prepares(solver) or is_prepared(solver)


def described(given: object) -> str:
    """What something is, in words for a message that refuses it."""
    if isinstance(given, str):
        return f"the string {given!r}"
    if prepares(given):
        return repr(given)
    return f"{name_of(given)} prepared for one matrix" if is_prepared(given) else type(given).__name__
