"""Derivatives by PyTorch of ``solver(A, b)``, from NumPy to NumPy. A is the values of the stored entries."""

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode


class PyTorch:
    def variable(self, system, values):
        return tensor(values)

    def entries(self, gradient, system):
        return gradient.detach().resolve_conj().numpy()

    def inner(self, gradient, system, direction):
        return (gradient * tensor(direction)).sum()

    def solution(self, solver, system):
        return solver(self.variable(system, system.values), tensor(system.b)).detach().numpy()

    def gradient(self, solver, system, scale=1.0):
        A = self.variable(system, system.values).requires_grad_()
        (gradient,) = torch.autograd.grad(scale * loss(solver, system)(A), A)
        return self.entries(gradient, system)

    def reverse_over_reverse(self, solver, system, direction):
        A = self.variable(system, system.values).requires_grad_()
        (gradient,) = torch.autograd.grad(loss(solver, system)(A), A, create_graph=True)
        (product,) = torch.autograd.grad(self.inner(gradient, system, direction), A)
        return self.entries(product, system)

    def forward_over_reverse(self, solver, system, direction):
        gradient = torch.func.grad(loss(solver, system))
        primal, moved = self.variable(system, system.values), self.variable(system, direction)
        return self.entries(torch.func.jvp(gradient, (primal,), (moved,))[1], system)

    def tangent(self, solver, system, direction):
        b = tensor(system.b)
        primal, moved = self.variable(system, system.values), self.variable(system, direction)
        return torch.func.jvp(lambda A: solver(A, b), (primal,), (moved,))[1].detach().numpy()

    def mapped(self, solver, system, sides):
        A = self.variable(system, system.values)
        return torch.func.vmap(lambda b: solver(A, b))(tensor(sides)).detach().numpy()

    def batch_gradient(self, solver, systems):
        """One call for several matrices on one pattern, by the library's own way."""
        values, b, weights = (
            tensor(np.stack([getattr(system, part) for system in systems])) for part in ("values", "b", "weights")
        )
        values.requires_grad_()
        return torch.autograd.grad((weights * solver(values, b) ** 2).sum() / 2, values)[0].numpy()

    def program(self, solver, system):
        """The largest array that computing the gradient makes; what it calls outside of PyTorch is not seen."""
        with Sizes() as sizes:
            self.gradient(solver, system)
        return sizes.largest, ""

    def finish(self):
        pass


class SparseTensor(PyTorch):
    """The same where A is a sparse COO tensor, which is differentiated itself."""

    def variable(self, system, values):
        indices = torch.from_numpy(np.stack([system.rows, system.columns]))
        return torch.sparse_coo_tensor(indices, tensor(values), system.A.shape).coalesce()

    def entries(self, gradient, system):
        assert gradient.layout == torch.sparse_coo
        return gradient.detach().coalesce().values().numpy()

    def inner(self, gradient, system, direction):
        return (gradient.to_dense() * tensor(system.dense(direction))).sum()  # .values() would lose the graph


class Sizes(TorchDispatchMode):
    """The largest dense array that passes by."""

    largest = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        for array in out if isinstance(out, (tuple, list)) else [out]:
            if isinstance(array, torch.Tensor) and array.layout == torch.strided:
                self.largest = max(self.largest, array.numel())
        return out


def loss(solver, system):
    b, weights = tensor(system.b), tensor(system.weights)

    def loss(A):
        x = solver(A, b)
        return (weights * (x * x.conj()).real).sum() / 2

    return loss


def tensor(array):
    return torch.from_numpy(np.array(array))
