"""The argument checks, applied to arrays. Values are checked where they are concrete."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.experimental.sparse import BCOO, BCSR, JAXSparse

from tsgu._core import _kinds
from tsgu._core._dtypes import DTYPES
from tsgu._core.methods import _registry
from tsgu._core.pattern import _indices, _operands, _values
from tsgu._core.report import _across, _place, _solver_words, _wording
from tsgu_jax._program._internals import is_traced


def is_array(x: Any) -> bool:
    return isinstance(x, Array | np.ndarray)


def is_like_array(leaf: Any) -> bool:
    """Whether it has a shape and a dtype: a function of leaves may have put anything in the place of an array."""
    return hasattr(leaf, "shape") and hasattr(leaf, "dtype")


def as_array(name: str, x: Any) -> Array:
    """A JAX array of the same dtype; JAX itself would quietly turn float64 into float32 where x64 is off."""
    if (
        isinstance(x, np.ndarray)
        and x.dtype in (np.float64, np.complex128)
        and jax.dtypes.canonicalize_dtype(x.dtype) != x.dtype
    ):
        raise TypeError(_wording.needs_x64(name, x.dtype))
    # JAX reads the memory of a NumPy array later than this, and follows what has been done to it by then.
    return jnp.asarray(np.array(x) if isinstance(x, np.ndarray) else x)


def check_sparse_matrix(A: Any, batches: bool = False) -> None:
    """A sparse BCOO or BCSR matrix, or a batch where that is taken; the layout is judged before the shape."""
    if not isinstance(A, BCOO | BCSR):
        if not (isinstance(A, JAXSparse) or is_array(A)):
            raise ValueError(_wording.not_a("A", "a BCOO, a BCSR or a SparseMatrix", A))
        kind = type(A).__name__ if isinstance(A, JAXSparse) else "dense"
        raise TypeError(_wording.layout("A", "BCOO or BCSR", kind, "Convert it, for example by BCOO.fromdense(A)."))
    if A.ndim - A.n_dense not in ((2, 3) if batches else (2,)):
        words = _wording.not_matrix_or_batch if batches else _wording.not_matrix
        raise ValueError(words(tuple(A.shape), type(A).__name__))
    if A.n_dense:
        raise ValueError(_wording.hybrid(tuple(A.shape[A.ndim - A.n_dense :])))
    if A.n_batch and not (batches and A.n_batch == 1 and A.ndim == 3):
        kind = f"{type(A).__name__} with n_batch={A.n_batch}"
        raise TypeError(
            _wording.layout("A", "BCOO or BCSR with n_batch=0", kind, "Use bcoo_update_layout(A, n_batch=0).")
        )


def check_square(shape: tuple[int, ...], kind: str) -> None:
    if shape[-2] != shape[-1]:
        raise ValueError(_wording.not_square(shape, kind))


def check_rhs_kind(B: Any, name: str = "B") -> None:
    if isinstance(B, JAXSparse):
        raise TypeError(_wording.layout(name, "dense", type(B).__name__, f"Convert it by {name}.todense()."))
    if not is_array(B):
        raise ValueError(_wording.not_a(name, "a dense jax.Array or numpy.ndarray", B))


def check_rhs(B: Any, n: int, batch: int | None, name: str = "B") -> None:
    """A dense right-hand side for n unknowns, or for a batch of such systems."""
    check_rhs_kind(B, name)
    head = (n,) if batch is None else (batch, n)
    if B.ndim not in (len(head), len(head) + 1) or tuple(B.shape[: len(head)]) != head:
        raise ValueError(_wording.rhs_shape(n, tuple(B.shape), batch, name))


def check_dtype(name: str, x: Any) -> None:
    if str(x.dtype) not in DTYPES:
        raise TypeError(_wording.dtype(name, x.dtype))


def promote(a: Array, b: Array) -> tuple[Array, Array]:
    """Bring both to one dtype, with a warning where they differ."""
    if a.dtype == b.dtype:
        return a, b
    common = jnp.promote_types(a.dtype, b.dtype)
    _place.warn(UserWarning(_wording.dtypes_differ(a.dtype, b.dtype, common)))
    return a.astype(common), b.astype(common)


def check_finite(name: str, x: Any) -> None:
    """Concrete arrays only; a traced one is judged where its columns are."""
    if x is None or is_traced(x):
        return
    finite = np.isfinite(np.asarray(x))
    if not finite.all():
        raise ValueError(_wording.non_finite(name, int((~finite).sum()), finite.size))


def check_callable(name: str, function: Any) -> None:
    other = _across.method_of_the_other_package(name, function, "tsgu_jax")
    if other:
        raise TypeError(other)
    if function is not None and not _kinds.is_solver(function):
        raise TypeError(_solver_words.not_a_solver(name, function, _registry.meant(name, function, "tsgu_jax")))


def check_verify(verify: Any) -> None:
    if verify is None:
        return
    if isinstance(verify, bool) or not isinstance(verify, int | float) or not 0 < verify < math.inf:
        raise ValueError(_solver_words.verify(verify))


def check_tall(shape: tuple[int, ...], kind: str) -> None:
    if shape[-2] < shape[-1]:
        raise ValueError(_wording.not_tall(shape, kind))


def check_no_empty_column(pattern: Any) -> None:
    """A column without a stored entry: all that a pattern tells of rank, where its indices are concrete."""
    if is_traced(pattern.row, pattern.col):
        return
    empty = np.flatnonzero(np.diff(pattern.symbolic.transpose.indptr) == 0)
    if empty.size:
        raise ValueError(_wording.empty_columns(empty.tolist()))


def start(x0: Any, B: Array, shape: tuple[int, ...] | None = None) -> Array:
    """x0 as an array like B, or like B but for its shape."""
    like, shape = ("B", tuple(B.shape)) if shape is None else ("the solution", shape)
    if not is_array(x0):
        raise TypeError(_wording.not_a("x0", "an array like B", x0))
    if tuple(x0.shape) != shape:
        raise ValueError(_wording.x0_shape(shape, tuple(x0.shape), like))
    if jnp.iscomplexobj(x0) and not jnp.iscomplexobj(B):
        raise TypeError(f"x0 must be real for a real system; got {x0.dtype}.")
    return jax.lax.stop_gradient(as_array("x0", x0).astype(B.dtype))


def solution(name: str, x: Any, B: Array, shape: tuple[int, ...] | None = None) -> Array:
    """What a user's solver returned, as an array like B, or like B but for its shape."""
    shape = tuple(B.shape) if shape is None else shape
    if isinstance(x, tuple) and x:
        x = x[0]  # (X, info), as the solvers of SciPy and JAX return
    expected = f"an array of shape {shape}"
    if not is_array(x):
        raise TypeError(_solver_words.result(name, expected, type(x).__name__))
    if tuple(x.shape) != shape:
        raise ValueError(_solver_words.result(name, expected, f"shape {tuple(x.shape)}"))
    if jnp.iscomplexobj(x) and not jnp.iscomplexobj(B):
        raise TypeError(_solver_words.result(name, f"{expected} and dtype {B.dtype}", str(x.dtype)))
    return jnp.asarray(x).astype(B.dtype)


def check_flag(name: str, value: Any) -> None:
    if not isinstance(value, bool):
        raise TypeError(_wording.flag(name, value))


def indices(name: str, given: Any) -> Any:
    """Indices as an array of NumPy, or of JAX where it is one."""
    accepted = "a jax.Array"
    if not isinstance(given, Array):
        return _indices.as_indices(name, given, accepted)
    _indices.check_index_dtype(name, given.dtype, jnp.issubdtype(given.dtype, jnp.integer), accepted)
    return given if is_traced(given) else _indices.as_indices(name, np.asarray(given), accepted)


def check_given(given: Any, nse: int, any_batch: bool) -> None:
    """Values in the order that a pattern was built from."""
    if not is_array(given):
        raise ValueError(_wording.not_a("given", "a jax.Array or numpy.ndarray", given))
    if (given.ndim == 0 if any_batch else given.ndim not in (1, 2)) or given.shape[-1] != nse:
        raise ValueError(_values.given_shape("given", nse, tuple(given.shape), any_batch))


def check_values(values: Any, nnz: int) -> None:
    if not is_array(values):
        raise ValueError(_wording.not_a("values", "a jax.Array or numpy.ndarray", values))
    if values.ndim not in (1, 2) or values.shape[-1] != nnz:
        raise ValueError(
            f"values must be dense with shape ({nnz},) or (batch, {nnz}), one per stored entry; "
            f"got {tuple(values.shape)}."
        )


def check_indices(pattern: Any) -> None:
    """Index arrays that are integers still: they are leaves, and a function of leaves may have been applied to them."""
    for index in (pattern.row, pattern.col):
        if not (hasattr(index, "dtype") and jnp.issubdtype(index.dtype, jnp.integer)):
            raise TypeError(_wording.mapped_indices(getattr(index, "dtype", type(index).__name__)))


def check_unbatched(values: Any) -> None:
    if values.ndim != 1:
        raise ValueError(
            f"values must have shape (nnz,) to become one sparse array; got {tuple(values.shape)}. "
            "Convert the members of a batch one by one."
        )


def check_preparable(A: Any, rectangular: bool) -> None:
    """One SparseMatrix that a method can be prepared for."""
    if A.values.ndim != 1:
        raise ValueError(_solver_words.one_matrix(tuple(A.shape), _solver_words.PREPARE_EACH))
    if not rectangular:
        check_square(tuple(A.shape), "SparseMatrix")
    check_dtype("A", A.values)
    check_finite("A", A.values)


def check_concrete(*parts: Any) -> None:
    if is_traced(*parts):
        raise TypeError(_wording.not_concrete("a traced one", "jit, grad and vmap"))


def check_factor(shape: tuple[int, ...], values: Any, X: Any) -> None:
    """The right factor of a product with a matrix, or a batch, of this shape."""
    if not is_array(X):
        raise TypeError(f"X must be a dense jax.Array; got {type(X).__name__}.")
    head = (*shape[:-2], shape[-1])
    if X.ndim not in (len(head), len(head) + 1) or tuple(X.shape[: len(head)]) != head:
        block = str((*head, "k")).replace("'", "")
        raise ValueError(f"X must have shape {head} or {block}; got {tuple(X.shape)}.")
    if X.dtype != values.dtype:
        raise TypeError(f"X must have the dtype of the matrix, {values.dtype}; got {X.dtype}.")


def refused_summand(symbol: str, X: Any) -> Any:
    """NotImplemented, for what may know itself how to be added to a SparseMatrix; words for anything else."""
    _operands.refuse_summand(symbol, X, (Array, JAXSparse), "SparseMatrix.from_bcoo or from_scipy")
    return NotImplemented


def check_known(*patterns: Any) -> None:
    """Patterns of a product of two sparse matrices."""
    if any(is_traced(pattern.row, pattern.col) for pattern in patterns):
        raise TypeError(_operands.concrete_product())
