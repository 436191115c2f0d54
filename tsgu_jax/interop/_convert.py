"""Arrays and sparse matrices from one framework to the other."""

from typing import Any
from weakref import WeakKeyDictionary

import jax
import jax.numpy as jnp
import numpy as np
import torch
from jax import Array
from jax.experimental.sparse import BCOO, BCSR
from torch import Tensor
from torch.utils.dlpack import from_dlpack

import tsgu
import tsgu_jax
from tsgu._core.pattern._symbolic import index_dtype
from tsgu._core.report import _wording
from tsgu_jax._program import _internals


def to_jax(x: Any, *, copy: bool | None = None) -> Any:
    """A torch tensor or :class:`tsgu.SparseMatrix` as its counterpart in JAX.

    Gradients are not carried across: the result is data. For derivatives through both frameworks use
    :func:`jax_solver`, :func:`torch_solver` or torch2jax.

    Parameters
    ----------
    x : Tensor (dense, sparse COO or sparse CSR) or tsgu.SparseMatrix
        COO becomes a ``BCOO``, repeated positions included, CSR a ``BCSR``, and a SparseMatrix one of ``tsgu_jax`` on
        the same pattern. Index arrays are 32-bit where they fit.
    copy : bool, optional
        None shares memory where device, dtype and strides allow it: neither side may write to it from then on. True
        always copies; False shares or raises a ValueError.

    Returns
    -------
    Array, BCOO, BCSR or tsgu_jax.SparseMatrix
        On the device of ``x``.

    Raises
    ------
    TypeError
        If ``x`` is something else, or has a 64-bit dtype while JAX has 64-bit types turned off.
    ValueError
        If a sparse tensor does not have two dimensions and scalar entries; if ``copy`` is False and memory cannot be
        shared.

    Examples
    --------
    >>> import torch
    >>> from tsgu_jax.interop import to_jax
    >>> to_jax(torch.tensor([1.0, 2.0]))
    Array([1., 2.], dtype=float32)
    >>> to_jax(torch.eye(2).to_sparse())
    BCOO(float32[2, 2], nse=2)
    """
    if isinstance(x, tsgu.SparseMatrix):
        return tsgu_jax.SparseMatrix(_dense_to_jax(x.values, copy), pattern_to_jax(x.pattern))
    if not isinstance(x, Tensor):
        raise TypeError(_wording.not_a("x", "a torch.Tensor or a tsgu.SparseMatrix", x))
    if x.layout == torch.strided:
        return _dense_to_jax(x, copy)
    _check_sparse_tensor(x)
    x, shape = x.detach(), (x.shape[0], x.shape[1])
    if x.layout == torch.sparse_coo:
        data, indices = _dense_to_jax(x._values(), copy), _indices_to_jax(x._indices().T, shape)
        canonical = x.is_coalesced()
        return BCOO((data, indices), shape=shape, indices_sorted=canonical, unique_indices=canonical)
    data = _dense_to_jax(x.values(), copy)
    return BCSR((data, _indices_to_jax(x.col_indices(), shape), _indices_to_jax(x.crow_indices(), shape)), shape=shape)


def to_torch(x: Any, *, copy: bool | None = None) -> Any:
    """A JAX array, ``BCOO``, ``BCSR`` or :class:`tsgu_jax.SparseMatrix` as its counterpart in torch.

    Gradients are not carried across: the result is data, and does not require grad.

    Parameters
    ----------
    x : Array, BCOO, BCSR or tsgu_jax.SparseMatrix
        Concrete. A ``BCOO`` becomes a COO tensor, coalesced only where ``x`` says that it is sorted and unique, a
        ``BCSR`` a CSR tensor, and a SparseMatrix one of ``tsgu`` on the same pattern. Padding entries are left out.
    copy : bool, optional
        None shares memory where device and dtype allow it: the tensor must not be written to then, since JAX relies on
        its arrays not to change. True always copies; False shares or raises a ValueError.

    Returns
    -------
    Tensor or tsgu.SparseMatrix
        On the device of ``x``.

    Raises
    ------
    TypeError
        If ``x`` is something else, or traced.
    ValueError
        If a sparse array does not have two dimensions and scalar entries; if ``copy`` is False and memory cannot be
        shared.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from tsgu_jax.interop import to_torch
    >>> to_torch(jnp.arange(3.0))
    tensor([0., 1., 2.])
    """
    if _internals.is_traced(x):
        raise TypeError(
            "x must be concrete to become a torch tensor; got a traced array. Inside jit, grad or vmap call torch "
            "through tsgu_jax.interop.torch_solver, or turn the torch function into a JAX one by torch2jax."
        )
    if isinstance(x, tsgu_jax.SparseMatrix):
        x = x._settled()
        values = _dense_to_torch(x.values, copy)
        return tsgu.SparseMatrix(values, tsgu.Pattern._of(x.pattern.symbolic, values.device))
    if isinstance(x, Array):
        return _dense_to_torch(x, copy)
    if not isinstance(x, BCOO | BCSR):
        raise TypeError(_wording.not_a("x", "a jax.Array, a BCOO, a BCSR or a tsgu_jax.SparseMatrix", x))
    if x.ndim != 2 or x.n_batch or x.n_dense:
        raise ValueError(_not_a_matrix(tuple(x.shape), f"{type(x).__name__} with n_batch={x.n_batch}"))
    data = _dense_to_torch(x.data, copy)
    if isinstance(x, BCOO):
        return coo_tensor(data, np.asarray(x.indices), x.shape, bool(x.indices_sorted and x.unique_indices))
    crow, col = (_dense_to_torch(part, True) for part in (x.indptr, x.indices))
    return csr_tensor(data, col, crow, x.shape)


def coo_tensor(data: Tensor, indices: np.ndarray[Any, Any], shape: tuple[int, ...], canonical: bool) -> Tensor:
    """The COO tensor with the data and the indices (nse, 2) of a ``BCOO``, without its padding."""
    counts = (indices < np.array(shape)).all(axis=1)
    if not counts.all():
        indices, data = indices[counts], data[torch.from_numpy(counts).to(data.device)]
    place = torch.from_numpy(np.ascontiguousarray(indices.T.astype(np.int64))).to(data.device)
    return torch.sparse_coo_tensor(place, data, shape, is_coalesced=canonical or None, check_invariants=False)


def csr_tensor(data: Tensor, col: Tensor, crow: Tensor, shape: tuple[int, ...]) -> Tensor:
    """The CSR tensor with the arrays of a ``BCSR``, without its padding, which stands at the end."""
    stored = int(crow[-1])
    return torch.sparse_csr_tensor(crow, col[:stored], data[:stored], shape, check_invariants=False)


def _dense_to_jax(x: Tensor, copy: bool | None) -> Array:
    if jax.dtypes.canonicalize_dtype(_dtype(x)) != _dtype(x):
        raise TypeError(_wording.needs_x64("x", x.dtype))
    plain = x.detach()
    compact = plain.resolve_conj().resolve_neg().contiguous()
    if copy is False and compact.data_ptr() != plain.data_ptr():
        raise ValueError(f"x must be contiguous to be shared; got strides {x.stride()} or a lazy conjugate.")
    if not compact.numel():  # an empty array has no memory that could be shared
        return jnp.zeros(tuple(compact.shape), _dtype(compact))
    if copy and compact.data_ptr() == plain.data_ptr():
        compact = compact.clone()  # JAX shares what torch exports even where it is told to copy
    return jnp.from_dlpack(compact, copy=None if copy else copy)


def _dense_to_torch(x: Array, copy: bool | None) -> Tensor:
    if not x.size:
        return torch.from_numpy(np.array(x))
    tensor = from_dlpack(x)
    return tensor.clone() if copy else tensor


def _dtype(x: Tensor) -> Any:
    return jnp.dtype(str(x.dtype).removeprefix("torch."))


def _indices_to_jax(indices: Tensor, shape: tuple[int, int]) -> Array:
    host = indices.cpu().numpy()
    place = None if indices.device.type == "cpu" else jnp.from_dlpack(indices.new_zeros(1)).device
    return jax.device_put(np.ascontiguousarray(host.astype(index_dtype(host.size, shape))), place)


_patterns: WeakKeyDictionary[tsgu.Pattern, tsgu_jax.Pattern] = WeakKeyDictionary()


def pattern_to_jax(pattern: tsgu.Pattern) -> tsgu_jax.Pattern:
    """The same pattern, found again so that its layouts for products are built once."""
    if pattern not in _patterns:
        _patterns[pattern] = tsgu_jax.Pattern._of(pattern.symbolic)
    return _patterns[pattern]


def _check_sparse_tensor(x: Tensor) -> None:
    if x.layout not in (torch.sparse_coo, torch.sparse_csr):
        raise TypeError(_wording.layout("x", "dense, sparse COO or sparse CSR", str(x.layout)))
    if x.dim() != 2 or x.dense_dim():
        raise ValueError(_not_a_matrix(tuple(x.shape), str(x.layout)))


def _not_a_matrix(shape: tuple[int, ...], layout: str) -> str:
    return f"x must have two dimensions and scalar entries; got {shape} in layout {layout}."
