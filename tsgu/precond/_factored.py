"""Factors of a matrix, such as an earlier one of a training loop, as a preconditioner for others."""

import torch
from torch import Tensor

from tsgu._core.factors._factorisation import Factorisation
from tsgu.precond._base import Preconditioner


class Factored(Preconditioner):
    """Triangular solves on the host, as the factors are: neither refined nor judged. The transpose shares them."""

    def __init__(
        self, factors: Factorisation, dtype: torch.dtype, device: torch.device, transposed: bool = False
    ) -> None:
        super().__init__(factors.matrix.shape[0], dtype, device)
        self._factors, self._transposed = factors, transposed

    def apply(self, v: Tensor) -> Tensor:
        return torch.from_numpy(self._factors.precondition(v.cpu().numpy(), self._transposed)).to(v)

    @property
    def T(self) -> "Factored":  # noqa: N802
        return Factored(self._factors, self.dtype, self.device, not self._transposed)

    def to(self, dtype: torch.dtype) -> "Factored":
        return self if dtype == self.dtype else Factored(self._factors, dtype, self.device, self._transposed)
