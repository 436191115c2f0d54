"""The dense truth: ``torch.linalg.solve`` on a matrix that ``index_put`` assembled on zeros, differentiated in reverse.

Nothing of the packages under test takes part. (Not forward mode of ``torch.linalg.solve``: nested, it is wrong.)
"""

import numpy as np
import torch

from tests.contract.systems import System


def _solve(system: System, values: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    place = torch.from_numpy(system.row), torch.from_numpy(system.col)
    dense = torch.zeros(system.n, system.n, dtype=values.dtype).index_put(place, values, accumulate=True)
    return torch.linalg.solve(dense, b)


def _leaves(system: System, b: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.tensor(system.values, requires_grad=True), torch.tensor(b, requires_grad=True)


def _dot(w: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """Re sum conj(w) x: the real loss whose gradient with respect to x is w, in torch's convention."""
    return (w.conj() * x).sum().real


def solution(system: System, b: np.ndarray) -> np.ndarray:
    return np.linalg.solve(system.dense, b)


def gradients(system: System, b: np.ndarray, w: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Gradients of Re <w, x> with respect to the given values, one each, and to b."""
    values, rhs = _leaves(system, b)
    grads = torch.autograd.grad(_dot(torch.tensor(w), _solve(system, values, rhs)), (values, rhs))
    return grads[0].numpy(), grads[1].numpy()


def hessian_products(
    system: System, b: np.ndarray, w: np.ndarray, direction: tuple[np.ndarray, np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """Second derivatives of Re <w, x x> along a direction in (values, b)."""
    values, rhs = _leaves(system, b)
    x = _solve(system, values, rhs)
    grads = torch.autograd.grad(_dot(torch.tensor(w), x * x), (values, rhs), create_graph=True)
    along = sum(_dot(torch.tensor(d), g) for d, g in zip(direction, grads, strict=True))
    second = torch.autograd.grad(along, (values, rhs))
    return second[0].numpy(), second[1].numpy()


def tangent(system: System, b: np.ndarray, direction: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """dx = A^-1 (db - dA x), written out."""
    change = np.zeros_like(system.dense)
    np.add.at(change, (system.row, system.col), direction[0])
    return np.linalg.solve(system.dense, direction[1] - change @ solution(system, b))
