"""Ordinary operations in a function that torch2jax turns into a JAX one: what assembling a matrix tends to need.

torch2jax knows some, for its own arrays and numbers. Here are those that it lacks, and those that fail where a plain
tensor, which is a constant, stands beside its arrays. Operations on plain tensors alone stay with torch.

A function is found in the table of torch2jax, a method or an operator of a plain tensor too, and one of its own arrays
is an attribute of their class.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
from jax import Array
from torch import Tensor
from torch2jax import Torchish

from tsgu_jax.interop._torch2jax import array, check_options, known_indices, stands_for

Counterpart = Callable[..., Array]


def _is_torchish(x: Any) -> bool:
    return isinstance(x, Torchish)


def _operand(x: Any) -> Any:
    """An array in place of a tensor; anything else as it is, so that a number does not decide the dtype."""
    if isinstance(x, Tensor) and not (x.is_floating_point() or x.is_complex()):
        return jnp.asarray(_checked(x.detach().cpu().numpy()))
    return array("input", x) if isinstance(x, Torchish | Tensor) else x


def _checked(integers: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Integers that JAX keeps."""
    kept = integers.astype(jax.dtypes.canonicalize_dtype(integers.dtype))
    if not np.array_equal(kept, integers):
        raise TypeError(
            f"integers must fit {kept.dtype} with 64-bit types off; got {integers.min()} to {integers.max()}."
        )
    return kept


def _enter(function: Any, counterpart: Counterpart) -> None:
    """Let a counterpart, which takes arrays in place of tensors, stand for a function wherever one is traced."""

    def run(*args: Any, **kwargs: Any) -> Any:
        if not any(map(_is_torchish, jax.tree.leaves((args, kwargs), is_leaf=_is_torchish))):
            return function(*args, **kwargs)
        args, kwargs = jax.tree.map(_operand, (args, kwargs), is_leaf=_is_torchish)
        return Torchish(counterpart(*args, **kwargs))

    stands_for(function)(run)


def _method_of(function: Any) -> Callable[..., Any]:
    """A method of the arrays of torch2jax, by way of its table."""
    return lambda self, *args, **kwargs: function(self, *args, **kwargs)


def _softplus(input: Array, beta: float = 1, threshold: float = 20) -> Array:
    return jnp.where(beta * input > threshold, input, jax.nn.softplus(beta * input) / beta)


_COUNTERPARTS: dict[str, Counterpart] = {
    "abs": lambda input: jnp.abs(input),
    "add": lambda input, other, *, alpha=1: input + alpha * other,
    "div": lambda input, other: input / other,
    "exp": lambda input: jnp.exp(input),
    "index_select": lambda input, dim, index: jnp.take(input, index, axis=dim),
    "log": lambda input: jnp.log(input),
    "matmul": lambda input, other: input @ other,
    "mul": lambda input, other: input * other,
    "neg": lambda input: -input,
    "pow": lambda input, exponent: input**exponent,
    "sqrt": lambda input: jnp.sqrt(input),
    "sub": lambda input, other, *, alpha=1: input - alpha * other,
}
for _name, _counterpart in _COUNTERPARTS.items():
    for _function in (getattr(torch, _name), getattr(Tensor, _name)):
        _enter(_function, _counterpart)
    if not hasattr(Torchish, _name):
        setattr(Torchish, _name, _method_of(getattr(torch, _name)))

_enter(torch.stack, lambda tensors, dim=0: jnp.stack(tensors, axis=dim))
_enter(torch.cat, lambda tensors, dim=0: jnp.concatenate(tensors, axis=dim))
_enter(torch.nn.functional.softplus, _softplus)
_enter(Tensor.__pow__, _COUNTERPARTS["pow"])
_enter(Tensor.__rpow__, lambda input, other: other**input)
_enter(Tensor.__rsub__, lambda input, other: other - input)
_enter(Tensor.__rdiv__, lambda input, other: other / input)

for _operator, _name in {
    "__abs__": "abs",
    "__add__": "add",
    "__matmul__": "matmul",
    "__mul__": "mul",
    "__neg__": "neg",
    "__pow__": "pow",
    "__sub__": "sub",
    "__truediv__": "div",
}.items():
    setattr(Torchish, _operator, _method_of(getattr(torch, _name)))
# A number on the left; a plain tensor there asks its own method, which is in the table.
Torchish.__rtruediv__ = lambda self, other: Torchish(other / self.value)
Torchish.__rpow__ = lambda self, other: Torchish(other**self.value)


def _getitem(self: Any, key: Any) -> Any:
    """Indices may be plain tensors or lists, as in torch. One out of range gives NaN; JAX would take the nearest."""
    parts = key if isinstance(key, tuple) else (key,)
    with torch._C.DisableTorchFunction():  # in a method of theirs, unlike in the table, torch2jax still listens
        known = tuple(known_indices(part) if isinstance(part, Torchish | Tensor | list) else part for part in parts)
    return Torchish(self.value.at[known].get(mode="fill"))


Torchish.__getitem__ = _getitem
_enter(Tensor.__getitem__, lambda input, key: input.at[key].get(mode="fill"))


@stands_for(torch.full)
def _full(size: Any, fill_value: Any, *, dtype: torch.dtype | None = None, **options: Any) -> Any:
    check_options("torch.full", options, ("device", "layout", "pin_memory"))
    return Torchish(_operand(torch.full(size, fill_value, dtype=dtype)))
