"""A preconditioner of ``precond`` given as a recipe, such as ``M=precond.amg``: made for the matrix at hand."""

import functools
from typing import Any

from tsgu import precond
from tsgu._core.factors import _kept
from tsgu._core.factors._kept import Use
from tsgu._core.report import _solver_words
from tsgu._matrix import _products
from tsgu._matrix._sparse_matrix import SparseMatrix

_RECIPES = (precond.amg, precond.block_jacobi, precond.ilu, precond.jacobi)


def is_recipe(M: Any) -> bool:
    """Whether M is a function of ``precond``, or a partial of one."""
    function = M.func if isinstance(M, functools.partial) else M
    return any(function is recipe for recipe in _RECIPES)


def made(recipe: Any, A: Any) -> Use:
    """The preconditioner for A: kept with its pattern, refreshed for its values, or built.

    Raises
    ------
    TypeError
        If A is a function, of which none can be built.
    """
    if not isinstance(A, SparseMatrix):
        raise TypeError(_solver_words.recipe_for_a_function(name_of(recipe)))
    A = A.detach()
    shelf = _kept.shelf_of(A.pattern.symbolic)
    key = _kept.key_of(recipe, A.dtype, A.device)
    values = _products.host(A.values).copy()  # an optimiser changes them in place
    return shelf.find(key, values, lambda: recipe(A), lambda M: M.refresh(A))


def name_of(recipe: Any) -> str:
    """What the function of a recipe is called."""
    name: str = (recipe.func if isinstance(recipe, functools.partial) else recipe).__name__
    return name
