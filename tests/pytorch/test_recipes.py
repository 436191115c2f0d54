"""A preconditioner given as a recipe: built for the matrix at hand, kept with its pattern, and made again when worn."""

import copy
import functools

import numpy as np
import pytest
import torch

import tsgu
from tests.contract.test_refresh import diffusion
from tsgu import precond
from tsgu._core.factors import _kept

pytest.importorskip("pyamg", reason="needs pyamg")

SIDE = 24
Z = np.random.default_rng(0).standard_normal((3, SIDE, SIDE))
AMG = functools.partial(precond.amg, max_coarse=20)
B = torch.from_numpy(np.random.default_rng(1).standard_normal(SIDE**2))


def fresh(z=Z[0]):
    """A matrix on a pattern of its own, and another function that gives the values of others on it."""
    system = diffusion(SIDE, z)
    A = tsgu.SparseMatrix.from_coo(*map(torch.from_numpy, (system.row, system.col, system.values)), (SIDE**2,) * 2)
    return A, lambda z: A.with_values(A.pattern.matrix(torch.from_numpy(diffusion(SIDE, z).values)).values)


def how(log):
    return [info.note.rpartition(", ")[2] for info in log]


def solve(A, b=B, solver=tsgu.linear_cg, M=AMG, **kwargs):
    return tsgu.sparse_generic_solve(A, b, solver, M=M, **kwargs)


def test_it_is_built_once_and_refreshed_for_the_values_of_later_steps():
    """Catches: a set-up in each step; stale levels, which here take twice the steps; gradients that are those of
    another step, whose backward pass comes late."""
    A, at = fresh()
    leaves, losses = [], []
    with tsgu.record() as log:
        for step in range(3):
            matrix = at(Z[0] + 0.3 * step * Z[1])
            leaf = matrix.values.clone().requires_grad_()
            losses.append(solve(A.with_values(leaf), rtol=1e-11).sum())
            leaves.append(leaf)
        solve(A.with_values(leaves[-1].detach()), rtol=1e-11)
        for loss in losses:
            loss.backward()
    assert how(log)[:4] == ["built", "refreshed", "refreshed", "kept"]
    assert log[0].note == "M: amg, built"
    steps = [info.iterations for info in log]
    assert max(steps) <= 1.5 * steps[0] + 1, steps
    assert [info.transposed for info in log] == [False] * 4 + [True] * 3
    row, col = A.pattern.row.numpy(), A.pattern.col.numpy()
    for leaf in leaves:
        dense = A.with_values(leaf.detach()).to_dense().numpy()
        x, adjoint = np.linalg.solve(dense, B.numpy()), np.linalg.solve(dense.T, np.ones(SIDE**2))
        expected = -adjoint[row] * x[col]
        np.testing.assert_allclose(leaf.grad, expected, rtol=0, atol=1e-7 * abs(expected).max())


def test_it_is_rebuilt_once_its_steps_have_risen_by_half():
    """Catches: levels that are refreshed for ever, whatever has become of the matrix; a set-up in each step from then
    on."""
    A, _ = fresh()
    far = torch.from_numpy(np.exp(2 * Z[1].ravel()))
    other = A.with_values(A.values * far[A.pattern.row] * far[A.pattern.col])
    with tsgu.record() as log:
        for matrix in (A, other, A.with_values(1.01 * A.values), other, other):
            solve(matrix)
    assert how(log) == ["built", "refreshed", "refreshed", "rebuilt", "kept"]
    assert log[1].iterations > 1.5 * log[0].iterations

    def use(values, steps):
        found = shelf.find("key", np.array(values), lambda: object(), lambda M: M)
        found.judge(tsgu.SolveInfo("linear_cg", False, "converged", steps, 1e-8, None, None, ()))
        return found.how

    shelf = _kept.Shelf()
    runs = [([1.0], 8), ([1.1], 9), ([1.2], 12), ([1.3], 13), ([1.31], 9), ([1.5], 30), ([1.6], 8), ([1.0], 8)]
    assert [use(*run) for run in runs] == [
        "built",
        "refreshed",
        "refreshed",  # half as many again: worse than that is too much
        "refreshed",  # which is found out now
        "rebuilt",
        "refreshed",
        "rebuilt",
        "refreshed",  # that of the first matrix is still there, and right for it
    ]


def test_steps_that_are_few_may_rise_by_one():
    """Catches: a set-up for one step more in two, which is chance."""
    shelf = _kept.Shelf()
    runs = ((2, "built"), (3, "refreshed"), (3, "refreshed"), (5, "refreshed"), (2, "rebuilt"))
    for value, (steps, expected) in enumerate(runs, 1):
        found = shelf.find("key", np.array([value]), object, lambda M: M)
        assert found.how == expected
        found.judge(tsgu.SolveInfo("linear_cg", False, "converged", steps, 1e-8, None, None, ()))


def test_a_solve_that_fails_has_it_rebuilt():
    """Catches: a preconditioner that has become useless, kept because a failed solve has no steps for a decade."""
    shelf = _kept.Shelf()
    for value, status, expected in ((1.0, "converged", "built"), (2.0, "breakdown", "refreshed"), (2.1, "", "rebuilt")):
        found = shelf.find("key", np.array([value]), object, lambda M: M)
        assert found.how == expected
        found.judge(
            tsgu.SolveInfo("linear_cg", False, status, 9, 1e-8 if status == "converged" else 1.0, None, None, ())
        )


def test_recipes_are_told_apart_by_function_and_arguments_and_two_matrices_do_not_evict_each_other():
    """Catches: a partial made anew in each step, as in a loop, taken for another; an array compared by identity; levels
    of one kind for another."""
    A, at = fresh()
    far = at(5 * Z[2])
    ones = np.ones((SIDE**2, 1))

    def aggregation(ones):
        return functools.partial(precond.amg, kind="smoothed_aggregation", max_coarse=20, B=ones)

    recipes = [functools.partial(precond.amg, max_coarse=20), precond.jacobi, aggregation(ones)]
    again = [functools.partial(precond.amg, max_coarse=20), precond.jacobi, aggregation(ones.copy())]
    with tsgu.record() as log:
        for recipe in (*recipes, *again, aggregation(2 * ones)):
            solve(A, M=recipe)
    assert how(log) == ["built"] * 3 + ["kept"] * 3 + ["built"]
    assert len({info.iterations for info in log[:3]}) > 1
    A, at = fresh()
    far = at(5 * Z[2])
    shelf = _kept.shelf_of(A.pattern.symbolic)
    with tsgu.record() as log:
        solve(A)
        shelf.places[0].reach = 1e-3  # as after a solve of a matrix farther off that took too many steps
        for matrix in (far, A, far, A):
            solve(matrix)
    assert how(log) == ["built", "rebuilt", "kept", "kept", "kept"]


def test_each_member_of_a_batch_and_each_precision_has_its_own():
    """Catches: the first member's for all; levels in double for a system in single precision."""
    A, at = fresh()
    values = torch.stack([A.values, at(Z[0] + 0.2 * Z[1]).values])
    with tsgu.record() as log:
        x = torch.func.vmap(lambda v: solve(A.with_values(v)))(values)
    assert how(log) == ["built", "refreshed"]
    for got, own in zip(x, values, strict=True):
        dense = A.with_values(own).to_dense().numpy()
        np.testing.assert_allclose(got, np.linalg.solve(dense, B.numpy()), rtol=0, atol=1e-6 * abs(got).max())
    with tsgu.record() as log:
        single = solve(A.to(torch.float32), B.float())
    assert how(log) == ["built"]
    assert single.dtype == torch.float32


def test_it_serves_torch_func_prepare_and_a_copy_of_the_module():
    """Catches: a wrapper of torch.func that is kept with the pattern; a copy that takes the levels of the original."""
    A, _ = fresh()
    dense = A.to_dense().numpy()
    x, adjoint = np.linalg.solve(dense, B.numpy()), np.linalg.solve(dense.T, np.ones(SIDE**2))
    gradient = torch.func.grad(lambda v: solve(A.with_values(v), rtol=1e-11).sum())(A.values)
    expected = -adjoint[A.pattern.row.numpy()] * x[A.pattern.col.numpy()]
    np.testing.assert_allclose(gradient, expected, rtol=0, atol=1e-7 * abs(expected).max())
    prepared = tsgu.linear_cg.prepare(A, M=AMG, rtol=1e-10)
    np.testing.assert_allclose(prepared.solve(B), x, rtol=0, atol=1e-7 * abs(x).max())
    with tsgu.record() as log:
        solve(copy.deepcopy(A))
    assert log[0].converged


def test_values_changed_in_place_are_seen():
    """Catches: a view of the values as what the levels were built for: an optimiser's step would pass for none."""
    A, _ = fresh()
    values = A.values.clone()
    with tsgu.record() as log:
        solve(A.with_values(values))
        values *= 1.5
        x = solve(A.with_values(values))
    assert how(log) == ["built", "refreshed"]
    expected = np.linalg.solve(1.5 * A.to_dense().numpy(), B.numpy())
    np.testing.assert_allclose(x, expected, rtol=0, atol=1e-6 * abs(expected).max())


def test_what_has_no_preconditioner_is_refused_in_its_words():
    """Catches: a recipe that is called with a vector; the old levels for a matrix that cannot have new ones."""
    A, _ = fresh()
    with pytest.raises(TypeError, match=r"A must be a sparse matrix where M is the recipe amg, .*; got a function"):
        solve(lambda v: A @ v)
    solve(A)
    zero = A.with_values(torch.where(A.pattern.row == A.pattern.col, 0.0, A.values))
    with pytest.raises(ValueError, match="A must have no zero on its diagonal for amg"):
        solve(zero)
