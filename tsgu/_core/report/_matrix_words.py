"""The words about matrices that a method cannot work with; see :mod:`tsgu._core.report._wording`."""


def not_hermitian(method: str) -> str:
    return f"A is not symmetric (Hermitian), which {method} needs: use bicgstab, gmres or direct."


ZERO_PIVOT = "a pivot of exactly zero"


NULL_SPACE_REMEDY = (
    "fix one unknown for each vector that A maps to zero, or project these vectors out of B and out of the solution of "
    "a Krylov method."
)


def null_vector(words: str, of_transpose: bool) -> str:
    system = "A^T" if of_transpose else "A"
    return f"one with {system} z = 0, to working precision, for a z that is {words}"


def structurally_singular(rank: int, n: int) -> str:
    return (
        f"a pattern of structural rank {rank} for {n} unknowns, on which every matrix is singular: it has an empty row "
        "or column, or several rows whose entries stand in fewer columns than there are rows"
    )


def too_large(library: str, needed: int, free: int, n: int) -> str:
    return (
        f"direct by {library} would take about {needed / 1e9:.1f} GB for the factors of A, with {n} unknowns, and "
        f"{free / 1e9:.1f} GB are free. Use a Krylov method with a preconditioner, which needs no factors, such as "
        "linear_cg or bicgstab with precond.amg, or solve in single precision."
    )


def too_many(library: str, entries: float, n: int) -> str:
    return (
        f"direct by {library} counts the entries of its factors in 32 bits; got {n} unknowns, whose factors would have "
        f"about {entries:.0e}. Use library='rslab' or 'pardiso', which count in 64 bits, or a Krylov method with a "
        "preconditioner."
    )


def singular(reason: str) -> str:
    return (
        f"A must not be singular for direct; got {reason}. Look for a missing boundary condition, an unknown in no "
        f"equation, an equation that follows from others; {NULL_SPACE_REMEDY}"
    )


def singular_incomplete(reason: str) -> str:
    return (
        f"A must have nonsingular incomplete factors for ilu; got {reason}. "
        "Lower drop_tol, raise fill_factor, or factor A plus a small multiple of the identity."
    )


def constants_are_lost() -> str:
    return (
        "Each row of A, or each column, sums to zero, so that A is singular: a pure Neumann problem, or the Laplacian "
        "of a graph. Fix one unknown, or add a constraint."
    )


def zero_diagonal(name: str, first: int, count: int) -> str:
    return (
        f"A must have no zero on its diagonal for {name}; got {count}, the first in row {first}. "
        "Reorder the equations, or use ilu."
    )


def singular_block(first: int, rows: tuple[int, int], count: int) -> str:
    return (
        f"A must have nonsingular diagonal blocks for block_jacobi; got {count} singular, the first is block {first}, "
        f"rows {rows[0]} to {rows[1] - 1}. Choose another block size, or use ilu."
    )


def wrong_side(upper: bool, count: int, nnz: int, row: int, col: int, member: str) -> str:
    kind, side = ("upper", "below") if upper else ("lower", "above")
    return (
        f"A must be {kind} triangular with upper={upper}; got {count} of {nnz} entries {side} the diagonal, the first "
        f"at ({row}, {col}){member}. What is stored counts, zero or not: remove it, or pass upper={not upper}."
    )


def no_diagonal(count: int, n: int, row: int, member: str) -> str:
    return (
        f"A must store every entry of its diagonal; got none in {count} of {n} rows, the first row {row}{member}. "
        "Store them, or pass unitriangular=True for a diagonal of ones."
    )


def unit_diagonal(count: int, n: int, row: int, member: str) -> str:
    return (
        "A must store none of its diagonal with unitriangular=True, which stands for ones there, or all of it; got "
        f"{count} of {n} entries, the first in row {row}{member}. Remove or complete them, or pass unitriangular=False."
    )


def not_one_on_diagonal(count: int, n: int, row: int, member: str) -> str:
    return (
        "A must have ones alone on its diagonal with unitriangular=True, where that is stored; got something else in "
        f"{count} of {n} rows, the first row {row}{member}. Pass unitriangular=False to solve with what is stored."
    )


def zero_on_diagonal(count: int, n: int, row: int, member: str) -> str:
    return f"A must have no zero on its diagonal; got {count} in {n} rows, the first in row {row}{member}."
