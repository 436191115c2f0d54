"""Notice where PyTorch loses a second derivative: in the backward of its own sparse constructors."""

from typing import Any

import torch
from torch import Tensor

from tsgu._core.report import _place
from tsgu._matrix import _internals

_CONSTRUCTORS = ("SparseCooTensorWithDimsAndTensorsBackward", "SparseCompressedTensorBackward")

_LOST = (
    "The second derivative of this solve with respect to the values of A is lost: PyTorch does not differentiate the "
    "gradient of {constructor} again, and treats it as constant. Build A by tsgu.SparseMatrix.from_coo(row, col, "
    'values, shape) instead, which is exact to any order. See "Gradients" in the documentation.'
)


def warn_if_second_order_is_lost(node: Any, grad: Tensor) -> None:
    """Warn if a differentiable gradient is about to pass through ``torch.sparse_coo_tensor`` or its CSR sibling.

    ``node`` is the backward node of the matrix values; ``grad`` the gradient that has reached it.
    """
    if not torch.is_grad_enabled() or not _internals.is_followed(grad):
        return
    constructor = _constructor_above(node)
    if constructor is not None:
        _place.warn(UserWarning(_LOST.format(constructor=constructor)))


def _constructor_above(node: Any) -> str | None:
    """The name of a sparse constructor among the nodes that the gradient flows to."""
    queue, seen = [node], set()
    while queue:
        for following, _ in queue.pop().next_functions:
            if following is None or following in seen:
                continue
            seen.add(following)
            if following.name().startswith(_CONSTRUCTORS[0]):
                return "torch.sparse_coo_tensor"
            if following.name().startswith(_CONSTRUCTORS[1]):
                return "torch.sparse_csr_tensor"
            queue.append(following)
    return None
