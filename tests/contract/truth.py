"""The dense truth: ``torch.linalg.solve``, or QR for rectangular systems, on a matrix that ``index_put`` assembled on
zeros, differentiated in reverse.

Nothing of the packages under test takes part. (Not forward mode of ``torch.linalg.solve``: nested, it is wrong.)
"""

import numpy as np
import torch

from tests.contract.systems import System


def _solve(system: System, values: torch.Tensor, b: torch.Tensor, damp: float = 0.0) -> torch.Tensor:
    place = torch.from_numpy(system.row), torch.from_numpy(system.col)
    dense = torch.zeros(system.shape, dtype=values.dtype).index_put(place, values, accumulate=True)
    if system.m is None:
        return torch.linalg.solve(dense, b)
    below = torch.zeros(system.n, *b.shape[1:], dtype=b.dtype)
    q, r = torch.linalg.qr(torch.cat([dense, damp * torch.eye(system.n, dtype=dense.dtype)]))
    x = torch.linalg.solve_triangular(r, q.mH @ torch.cat([b, below]).reshape(q.shape[0], -1), upper=True)
    return x.reshape(system.n, *b.shape[1:])


def _leaves(system: System, b: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.tensor(system.values, requires_grad=True), torch.tensor(b, requires_grad=True)


def _dot(w: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """Re sum conj(w) x: the real loss whose gradient with respect to x is w, in torch's convention."""
    return (w.conj() * x).sum().real


def solution(system: System, b: np.ndarray, damp: float = 0.0) -> np.ndarray:
    if system.m is None:
        return np.linalg.solve(system.dense, b)
    return _solve(system, *(t.detach() for t in _leaves(system, b)), damp).numpy()


def gradients(system: System, b: np.ndarray, w: np.ndarray, damp: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Gradients of Re <w, x> with respect to the given values, one each, and to b."""
    values, rhs = _leaves(system, b)
    grads = torch.autograd.grad(_dot(torch.tensor(w), _solve(system, values, rhs, damp)), (values, rhs))
    return grads[0].numpy(), grads[1].numpy()


def hessian_products(
    system: System, b: np.ndarray, w: np.ndarray, direction: tuple[np.ndarray, np.ndarray], damp: float = 0.0
) -> tuple[np.ndarray, np.ndarray]:
    """Second derivatives of Re <w, x x> along a direction in (values, b)."""
    values, rhs = _leaves(system, b)
    x = _solve(system, values, rhs, damp)
    grads = torch.autograd.grad(_dot(torch.tensor(w), x * x), (values, rhs), create_graph=True)
    along = sum(_dot(torch.tensor(d), g) for d, g in zip(direction, grads, strict=True))
    second = torch.autograd.grad(along, (values, rhs))
    return second[0].numpy(), second[1].numpy()


def tangent(system: System, b: np.ndarray, direction: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """dx = A^-1 (db - dA x), or for least squares A^+ (db - dA x) + (A^H A)^-1 dA^H r, written out."""
    change = np.zeros_like(system.dense)
    np.add.at(change, (system.row, system.col), direction[0])
    if system.m is not None:
        x, A = solution(system, b), system.dense
        side = A.conj().T @ (direction[1] - change @ x) + change.conj().T @ (b - A @ x)
        return np.linalg.solve(A.conj().T @ A, side)
    return np.linalg.solve(system.dense, direction[1] - change @ solution(system, b))
