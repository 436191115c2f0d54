"""The words of the argument errors: the argument by name, what is accepted, what arrived, and the remedy."""

from collections.abc import Sequence

from tsgu._core._dtypes import DTYPES
from tsgu._core._kinds import described

CONVENTIONS = ' See "Conventions" in the documentation.'
GRADIENTS = ' See "Gradients" in the documentation.'
METHODS = ' See "Choosing a method" in the documentation.'
"""Pages that explain an error, by name."""

_DTYPES = f"{', '.join(DTYPES[:-1])} or {DTYPES[-1]}"


def not_a(name: str, accepted: str, got: object) -> str:
    home, kind, remedy = type(got).__module__.split(".")[0], described(got), ""
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


def x0_shape(expected: tuple[int, ...], got: tuple[int, ...], like: str = "B") -> str:
    return f"x0 must have the shape of {like}, {expected}; got {got}."


def not_one_of(name: str, words: Sequence[str], got: object) -> str:
    return f"{name} must be {', '.join(map(repr, words[:-1]))} or {words[-1]!r}; got {described(got)}."


def flag(name: str, got: object) -> str:
    return f"{name} must be True or False; got {got!r}."


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


def not_concrete(got: str, where: str) -> str:
    return f"The matrix must be concrete to become one of SciPy; got {got}. Convert it outside of {where}."
