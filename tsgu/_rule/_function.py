"""A matrix, or a preconditioner, given as a function: tried before it is used, and transposed by autograd."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from tsgu._core.report import _function_words, _wording
from tsgu._matrix import _internals
from tsgu._matrix._autocast import uncast

Apply = Callable[[Tensor], Tensor]


class Function:
    """A function v -> A v of the user's, for vectors of one length, or for blocks of some columns.

    Attributes
    ----------
    T : Function or None
        Its transpose, where the user gave one.
    seen : Tensor or None
        What it gave when it was tried.
    """

    def __init__(self, function: Any, like: Tensor | None = None, name: str = "A") -> None:
        self._function, self._name, self._like = function, name, like
        self._copies = True  # until it is seen that results have memory of their own
        self.seen: Tensor | None = None
        self.T: Function | None = None
        if not name.endswith(".T") and getattr(function, "T", None) is not None:
            if not callable(function.T):
                raise TypeError(_wording.not_a(f"{name}.T", f"a function v -> {name}^T v", function.T))
            self.T = Function(function.T, like, f"{name}.T")

    def __call__(self, x: Tensor) -> Tensor:
        """A x, in the graph."""
        y = uncast(self._function)(x)
        if not isinstance(y, Tensor) or y.shape != x.shape or y.dtype != x.dtype or y.device != x.device:
            _refuse_result(self._name, x, y)
        return y

    def apply(self, x: Tensor) -> Tensor:
        """A x for the loop of a method, which writes to what it is given."""
        y = self(x).detach().resolve_conj()
        return y.clone() if self._copies else y

    def tried(self, thoroughly: bool) -> bool:
        """Whether what the function closes over is differentiated; an error where the function does what it must not.

        Linear is what gives minus four times as much for minus four times a vector: arithmetic of any precision scales
        exactly by a power of two, so that a linear function shows no difference at all. Of a block, the second time it
        is given one column, since columns come alone too.
        """
        assert self._like is not None
        v = self._unwrapped(vectors(self._like)[0])
        kept = v.clone()
        first = self._unwrapped(self(v))
        if not thoroughly:
            return _has_derivative(first)
        plain = first.detach().resolve_conj().clone()
        if not torch.equal(v, kept):
            raise ValueError(_function_words.writes_to_its_argument(self._name))
        factor = -4j if v.is_complex() else -4.0
        other = self._unwrapped(factor * (v if v.dim() == 1 else v[:, :1]))
        second = self._unwrapped(self(other))
        scaled = second.detach()
        if not torch.isfinite(scaled).all() or not torch.isfinite(plain).all():
            raise ValueError(_function_words.non_finite_function())
        off = scaled - factor * (plain if v.dim() == 1 else plain[:, :1])
        if not off.abs().max().item() <= torch.finfo(v.dtype).eps ** 0.5 * scaled.abs().max().item():
            raise ValueError(_function_words.not_linear())
        self.seen = self._unwrapped(plain)
        self._copies = _share_memory(first, v) or _share_memory(first, second)
        return _has_derivative(first)

    def _unwrapped(self, y: Tensor) -> Tensor:
        """A result without the wrappers that torch.func gives to all; refused where they are more than wrappers."""
        wrapped = False
        while _internals.is_transformed(y):
            wrapped = True
            if _internals.is_mapped(y) or _has_derivative(y):
                break
            y = _internals.beneath(y)
        else:
            if not (wrapped and _has_derivative(y)):
                return y
        raise NotImplementedError(_function_words.function_under_transform(self._name))

    def is_unchanged(self) -> bool:
        """Whether it gives what it gave when it was tried."""
        if self.seen is None:
            return True
        now = self(vectors(self.seen)[0]).detach()
        return bool((now - self.seen).abs().max() <= torch.finfo(now.dtype).eps ** 0.5 * self.seen.abs().max())


class NotTransposableError(TypeError):
    """Autograd does not derive the transpose of a function."""


class Derived:
    """The transpose of a function by autograd, which differentiates a linear function into its adjoint.

    The graph of one product is kept, for each shape that comes, and run backwards as often as needed.
    """

    def __init__(self, function: Callable[[Tensor], Tensor], words: Callable[[str], str]) -> None:
        self._function, self._words = function, words
        self._graphs: dict[torch.Size, tuple[Tensor, Tensor]] = {}

    @uncast
    def __call__(self, u: Tensor) -> Tensor:
        """A^T u, for A^H u = conj(A^T conj(u)) is what PyTorch's convention gives."""
        if u.shape not in self._graphs:
            self._graphs[u.shape] = self._graph(u)
        return self._backward(*self._graphs[u.shape], u)

    def _graph(self, like: Tensor) -> tuple[Tensor, Tensor]:
        u, v = vectors(like)
        try:
            with torch.enable_grad():
                y = self._function(v.requires_grad_())
            back = self._backward(v, y, u)
        except RuntimeError as error:  # what PyTorch raises where there is no derivative
            raise NotTransposableError(self._words(f"{type(error).__name__}: {str(error).splitlines()[0]}")) from error
        if adjoint_deviation(y.detach(), back, u, v.detach()) > torch.finfo(u.dtype).eps ** 0.5:
            raise NotTransposableError(self._words("not all that it does to its argument is in the graph"))
        return v, y

    def _backward(self, v: Tensor, y: Tensor, u: Tensor) -> Tensor:
        (w,) = torch.autograd.grad(y, v, u.conj().resolve_conj(), retain_graph=True)
        return w.conj().resolve_conj()


def vectors(like: Tensor) -> tuple[Tensor, Tensor]:
    """Two vectors without structure, or blocks of such, of the shape, dtype and device of a tensor."""
    places = torch.arange(like.numel(), device=like.device, dtype=torch.int64).reshape(like.shape)
    u, v = torch.cos(1.0 + places**2 % 9973), torch.sin(2.0 + places**2 % 7919)
    if like.is_complex():
        u, v = torch.complex(u, v), torch.complex(v, -u)
    return u.to(like.dtype), v.to(like.dtype)


def adjoint_deviation(image: Tensor, back: Tensor, u: Tensor, v: Tensor) -> float:
    """How far <u, A v> is from <A^T u, v>, relative to its terms, given A v and A^T u."""
    norms = [torch.linalg.vector_norm(t).item() for t in (u, image, back, v)]
    terms = norms[0] * norms[1] + norms[2] * norms[3]
    off = ((u * image).sum() - (back * v).sum()).abs().item()
    return 0.0 if off == 0 else off / terms if terms else math.inf


def _has_derivative(y: Tensor) -> bool:
    return y.requires_grad or forward_ad.unpack_dual(y).tangent is not None


def _share_memory(a: Tensor, b: Tensor) -> bool:
    return a.untyped_storage().data_ptr() == b.untyped_storage().data_ptr()


def _refuse_result(name: str, x: Tensor, y: Any) -> None:
    given = str(tuple(x.shape)), f"{x.dtype} on {x.device}"
    if not isinstance(y, Tensor):
        raise TypeError(_function_words.result_of_function(name, *given, type(y).__name__))
    got = f"shape {tuple(y.shape)} and dtype {y.dtype} on {y.device}"
    raise (ValueError if y.shape != x.shape else TypeError)(_function_words.result_of_function(name, *given, got))
