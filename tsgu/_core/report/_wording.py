"""The words of the argument errors: the argument by name, what is accepted, what arrived, and the remedy."""

from collections.abc import Sequence

from tsgu._core._dtypes import DTYPES

CONVENTIONS = ' See "Conventions" in the documentation.'
GRADIENTS = ' See "Gradients" in the documentation.'
METHODS = ' See "Choosing a method" in the documentation.'
"""Pages that explain an error, by name."""

_DTYPES = f"{', '.join(DTYPES[:-1])} or {DTYPES[-1]}"


def name_of(solver: object) -> str:
    """What a callable is called in reports."""
    name: str = getattr(solver, "__name__", None) or getattr(solver, "name", None) or type(solver).__name__
    return name


def is_prepared(solver: object) -> bool:
    """Whether it solves with one matrix and its transpose, as what ``direct.prepare(A)`` returns."""
    solves = callable(getattr(solver, "solve", None)) and callable(getattr(solver, "solve_transpose", None))
    return solves and not prepares(solver)


def prepares(solver: object) -> bool:
    """Whether it is to be made ready for a matrix first; what comes of it may be the object itself."""
    return callable(getattr(solver, "prepare", None))


def is_solver(solver: object) -> bool:
    return callable(solver) or prepares(solver) or is_prepared(solver)


def not_a(name: str, accepted: str, got: object) -> str:
    home, kind, remedy = type(got).__module__.split(".")[0], type(got).__name__, ""
    if home in ("tsgu", "tsgu_jax") and kind in ("SparseMatrix", "Pattern"):  # which both packages have
        kind = f"{home}.{kind}"
        remedy = f" Convert it by tsgu_jax.interop.{'to_jax' if home == 'tsgu' else 'to_torch'}({name})."
    elif home == "scipy" and hasattr(got, "tocoo"):
        to = "SparseMatrix.from_scipy({})" if "atrix" in accepted else "{}.toarray()"
        remedy = f" Convert it by {to.format(name)}."
    elif home == "numpy" and hasattr(got, "shape") and "torch.Tensor" in accepted:
        remedy = f" Convert it by torch.from_numpy({name}){'.to_sparse_csr()' if 'sparse' in accepted else ''}."
    return f"{name} must be {accepted}; got {kind}.{remedy}"


def layout(name: str, accepted: str, got: str, remedy: str = "") -> str:
    return f"{name} must be {accepted}; got layout {got}.{remedy and ' ' + remedy}{CONVENTIONS}"


def not_square(shape: tuple[int, ...], kind: str) -> str:
    return (
        f"A must be square, (n, n); got {shape} in layout {kind}. "
        "For rectangular systems minimise |A x - B| by sparse_generic_lstsq (in JAX: lstsq)."
    )


def not_tall(shape: tuple[int, ...], kind: str) -> str:
    return (
        f"A must have at least as many rows as columns, (m, n) with m >= n; got {shape} in layout {kind}. "
        "The minimiser of an underdetermined system is not unique: add equations, or use lsmr with a small damp > 0, "
        "which tends to the solution of minimum norm."
    )


def empty_columns(columns: Sequence[int]) -> str:
    some = ", ".join(map(str, columns[:5])) + (", ..." if len(columns) > 5 else "")
    return (
        f"A must have full column rank; got {len(columns)} columns without a stored entry: {some}. Remove them, or use "
        "lsmr with damp > 0."
    )


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


def not_matrix(shape: tuple[int, ...], kind: str) -> str:
    return (
        f"A must have two dimensions, (n, n); got {shape} in layout {kind}. "
        "For a batch over one pattern use SparseMatrix with values of shape (batch, nnz)."
    )


def not_matrix_or_batch(shape: tuple[int, ...], kind: str) -> str:
    return f"A must have two dimensions, (m, m), or three for a batch, (batch, m, m); got {shape} in layout {kind}."


def vmap_of_sparse_tensor() -> str:
    return (
        "A must be a SparseMatrix under torch.func.vmap; got a sparse tensor that vmap maps over. Build it with "
        f"tsgu.SparseMatrix.from_coo(row, col, values, shape), and map over the values.{GRADIENTS}"
    )


def hybrid(shape: tuple[int, ...]) -> str:
    return f"A must have scalar entries; got a hybrid sparse tensor whose entries have shape {shape}.{CONVENTIONS}"


def rhs_shape(n: int, got: tuple[int, ...], batch: int | None = None, name: str = "B") -> str:
    expected = f"({n},) or ({n}, k)" if batch is None else f"({batch}, {n}) or ({batch}, {n}, k)"
    return f"{name} must have shape {expected} to match A; got {got}.{CONVENTIONS}"


def dtype(name: str, got: object) -> str:
    return f"{name} must have dtype {_DTYPES}; got {got}.{CONVENTIONS}"


def needs_x64(name: str, got: object) -> str:
    return (
        f"{name} must have a dtype that JAX keeps; got {got} with 64-bit types off, where it becomes single precision. "
        'Turn them on by jax.config.update("jax_enable_x64", True) or with jax.enable_x64(True), or convert it first.'
    )


def devices(a: object, b: object) -> str:
    return f"A and B must be on the same device; got A on {a} and B on {b}."


def dtypes_differ(a: object, b: object, common: object) -> str:
    return f"A and B have different dtypes, {a} and {b}; both are promoted to {common}."


def non_finite(name: str, count: int, size: int) -> str:
    return f"{name} must be finite; got {count} non-finite of {size} entries."


def not_callable(name: str, got: object, package: str = "tsgu") -> str:
    kind = f"the string {got!r}" if isinstance(got, str) else type(got).__name__
    if is_prepared(got):
        kind = f"{name_of(got)} prepared for one matrix"
    known = ("lsmr",) if "lstsq" in name else ("linear_cg", "minres", "bicgstab", "gmres", "direct", "auto")
    meant = got if got in known else known[0]
    remedy = f" Pass the method itself, like {name}={package}.{meant}." if isinstance(got, str) else ""
    accepted = "a callable (A, B, **kwargs) -> X"
    if "lstsq" not in name:
        accepted += ", an object with prepare(A), one with solve and solve_transpose"
    return f"{name} must be {accepted}, or None; got {kind}.{remedy}{METHODS}"


def preconditioner_as_solver(name: str, got: object, package: str = "tsgu") -> str:
    return (
        f"{name} must be a solver; got the preconditioner {name_of(got).lower()}. Give it to a Krylov method, like "
        f"solve={package}.gmres, M=M.{METHODS}"
    )


def not_m(got: object) -> str:
    kind = f"{name_of(got)} prepared for one matrix" if is_prepared(got) else repr(got)
    if not (is_prepared(got) or prepares(got)):
        kind = type(got).__name__
    return f"M must be a matrix or a callable r -> M r that approximates the inverse of A; got {kind}.{METHODS}"


def given_twice(name: str, one: object, other: object) -> str:
    return (
        f"{name} must be the same in both partials, since arguments are for both solves; got {one!r} and {other!r}. "
        "Pass it beside the methods."
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


def x0_shape(expected: tuple[int, ...], got: tuple[int, ...], like: str = "B") -> str:
    return f"x0 must have the shape of {like}, {expected}; got {got}."


def library(known: tuple[str, ...], got: object) -> str:
    return f"library must be {', '.join(map(repr, known))} or None; got {got!r}."


def result(name: str, expected: str, got: str) -> str:
    return f"{name} must return the solution as {expected}; got {got}."


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


def transpose_of_m(method: str, why: str = "") -> str:
    return (
        f"M must have a transpose where {method} is differentiated, since the adjoint system needs M.T; got a callable "
        f"without .T{_derived(why)}. Give M as a matrix, or as an object with __call__ and .T.{GRADIENTS}"
    )


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


def shape_of_m(n: int, got: tuple[int, ...], device: object = None, got_device: object = None) -> str:
    wanted, found = ("", "") if device is None else (f" on {device}", f" on {got_device}")
    return f"M must be a ({n}, {n}) matrix{wanted}, or a callable; got {got}{found}."


def complex_m(got: object) -> str:
    return f"M must be real for a real system; got {got}."


def one_matrix(shape: tuple[int, ...], remedy: str) -> str:
    return f"A must be one matrix, with values of shape (nnz,); got a batch, {shape}. {remedy}"


OF_ONE_MEMBER = "Build the preconditioner of one member, or of their mean."
PREPARE_EACH = "Prepare the members one by one."


def flag(name: str, got: object) -> str:
    return f"{name} must be True or False; got {got!r}."


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


def not_two_dimensional(shape: tuple[int, ...], kind: str) -> str:
    return f"A must have two dimensions, (m, n); got {shape} in format {kind}."


def dtype_of_scipy(got: object) -> str:
    return (
        f"A must have dtype {_DTYPES}, or integers or bool, which become float64; got {got}. "
        "Convert it first, for example by A.astype(float)."
    )


def mapped_indices(got: object) -> str:
    return (
        f"the index arrays of a SparseMatrix must be integers; got {got}, as from jax.tree.map over a SparseMatrix, "
        "whose leaves its indices are too. Map A.values alone and rebuild by A.with_values(values)."
    )


def partitioned(name: str, devices: int) -> str:
    return (
        f"A and B must be on one device for {name}, which calls the host, or be what jax.shard_map gives to one; got a "
        f"program that JAX partitions over {devices} devices by itself. Solve inside jax.shard_map over all axes of "
        "the mesh, where each device solves for its own columns, or members of a batch; or bring A and B to one device "
        "by jax.device_put."
    )


def not_concrete(got: str, where: str) -> str:
    return f"The matrix must be concrete to become one of SciPy; got {got}. Convert it outside of {where}."
