"""What PyTorch offers no public way to do: every use of its private names is here, with the reason beside it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor
from torch._C import _functorch
from torch._functorch.utils import unwrap_dead_wrappers
from torch.autograd import Function, forward_ad


def apply(function: Any, *args: Any) -> Any:
    """``function.apply``, also for the tensors of ``autograd.grad(..., is_grads_batched=True)``.

    That option still runs on the batching of PyTorch from before ``torch.func``, which knows nothing of a function's
    own ``vmap``: it is called here. Autocast is off, since a function keeps the dtype of its arguments.
    """
    with without_autocast():
        if not any(is_batched_by_autograd(a) for a in args):
            if torch._C._are_functorch_transforms_active():
                return function.apply(*args)
            # Function.apply first matches the arguments to the signature, which costs more than a small solve.
            return super(Function, function).apply(*unwrap_dead_wrappers(args))
        level = torch._C._vmapmode_increment_nesting() - 1
        torch._C._vmapmode_decrement_nesting()
        batched = [is_batched_by_autograd(a) for a in args]
        args = tuple(torch._remove_batch_dim(a, level, 1, 0) if b else a for a, b in zip(args, batched, strict=True))
        sizes = {a.shape[0] for a, b in zip(args, batched, strict=True) if b}
        info = SimpleNamespace(batch_size=sizes.pop(), randomness="error")
        result, _ = function.vmap(info, tuple(0 if b else None for b in batched), *args)
        if isinstance(result, tuple):
            return tuple(torch._add_batch_dim(part, 0, level) for part in result)
        return torch._add_batch_dim(result, 0, level)


def is_batched_by_autograd(x: Any) -> bool:
    """Whether ``autograd.grad(..., is_grads_batched=True)`` maps over a tensor; it does not say so in public."""
    return isinstance(x, Tensor) and _functorch.is_legacy_batchedtensor(x)


def is_mapped(x: Tensor) -> bool:
    """Whether ``torch.func.vmap`` maps over a tensor; there is no public question for that."""
    return _functorch.is_batchedtensor(x)


def is_transformed(x: Tensor) -> bool:
    """Whether a tensor belongs to a transform of ``torch.func``; there is no public question for that."""
    return _functorch.is_functorch_wrapped_tensor(x)


def beneath(x: Tensor) -> Tensor:
    """The tensor beneath the wrapper of the innermost transform of ``torch.func``, which hides it from NumPy."""
    inner: Tensor = _functorch.get_unwrapped(x)
    return inner


def without_derivatives(x: Tensor) -> Tensor:
    """The tensor beneath all wrappers of ``torch.func.grad`` and ``jvp``; those of ``vmap`` stay."""
    while _functorch.is_gradtrackingtensor(x):
        x = beneath(x)
    return x


def is_followed(x: Tensor) -> bool:
    """Whether somebody beyond the current transform differentiates a tensor.

    Under ``torch.func.grad`` every backward pass builds a graph, used or not; there the tensor beneath the wrapper of
    the current transform tells whether an outer one is at work.
    """
    return beneath(x).requires_grad if _functorch.is_gradtrackingtensor(x) else x.requires_grad


def untransformed() -> AbstractContextManager[Any]:
    """Operations inside the block are hidden from the transforms of ``torch.func`` around it."""
    return torch._C._DisableFuncTorch()


@contextmanager
def unobserved() -> Iterator[None]:
    """The same, and hidden from modes, as that of torch2jax, and from inference mode."""
    with torch._C._DisableFuncTorch(), torch._C.DisableTorchFunction(), torch.inference_mode(False):
        yield


def without_autocast() -> AbstractContextManager[Any]:
    """Operations inside the block keep their dtypes; ``torch.autocast(enabled=False)`` is for one kind of device."""
    return torch._C._DisableAutocast()


def is_autocast() -> bool:
    """Whether autocast is on for any kind of device; the public question is for one."""
    return torch._C._is_any_autocast_enabled()


def forward_mode(enabled: bool) -> AbstractContextManager[Any]:
    """Forward mode switched on or off, which PyTorch does in private while it runs a ``jvp``."""
    return forward_ad._set_fwd_grad_enabled(enabled)


def backward_pass() -> int:
    """A number of the backward pass at hand, negative outside of one."""
    return torch._C._current_graph_task_id()


def stored_values(A: Tensor) -> Tensor:
    """The values of a sparse tensor as they are stored: ``A.values()`` raises for an uncoalesced COO tensor."""
    return A._values() if A.layout == torch.sparse_coo else A.values()


def stored_indices(A: Tensor) -> Tensor:
    """The indices of a COO tensor as they are stored: ``A.indices()`` raises for an uncoalesced one."""
    return A._indices()


def is_lazy_zero(x: Tensor) -> bool:
    """Whether a tensor is a zero without memory, as PyTorch makes them for absent tangents."""
    return x._is_zerotensor()


def version(x: Tensor) -> int:
    """How often the memory of a tensor was written to; tensors of inference mode do not count."""
    return 0 if x.is_inference() else x._version
