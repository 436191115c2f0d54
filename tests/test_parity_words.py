"""What the two packages say of a solve and of a wrong argument: the same statuses, counts and words."""

import re
import warnings

import numpy as np
import pytest

pytest.importorskip("torch", reason="needs torch")
pytest.importorskip("jax", reason="needs jax")

import jax

from tests.contract import jax_adapter, torch_adapter
from tests.contract.cases import RTOL
from tests.contract.systems import BY_NAME, System, right_hand_side

PACKAGES = (torch_adapter, jax_adapter)


@pytest.fixture(autouse=True)
def x64():
    with jax.enable_x64(True):
        yield
        jax.effects_barrier()


def reports(package, method, system, **kwargs):
    """The log of a solve, and the text of its warning."""
    b = np.ones((2, 2)) if system is PLUS_MINUS else right_hand_side(system, 2)
    problem = package.Problem(system, b)
    with package.record() as log, warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always", package.ConvergenceWarning)
        problem.solve(package.method(method), **kwargs)
    return log, [str(w.message) for w in heard if w.category is package.ConvergenceWarning]


@pytest.mark.parametrize(
    ("method", "name"),
    [("linear_cg", "poisson"), ("linear_cg", "hermitian definite"), ("minres", "poisson"), ("minres", "indefinite")],
)
def test_conjugate_gradients_and_minres_take_the_same_steps(method, name):
    """Catches: a stopping rule, a scaling or a restart that only one package has."""
    for rtol in (1e-4, RTOL):
        (ours,), (theirs,) = (reports(package, method, BY_NAME[name], rtol=rtol)[0] for package in PACKAGES)
        assert ours.status == theirs.status == "converged"
        for a, b in zip(ours.columns, theirs.columns, strict=True):
            assert a.iterations > 3
            assert abs(a.iterations - b.iterations) <= 1


PLUS_MINUS = System("plus minus", np.arange(2), np.arange(2), np.array([1.0, -1.0]), 2, hermitian=True)
"""Whose product with (1, 1) is orthogonal to it."""

FAILURES = {
    "capped CG": ("linear_cg", "poisson", {"maxiter": 3}, "iteration limit", "Raise maxiter"),
    "capped MINRES": ("minres", "indefinite", {"maxiter": 3}, "iteration limit", "Raise maxiter"),
    "capped BiCGSTAB": ("bicgstab", "general", {"maxiter": 2}, "iteration limit", "Raise maxiter"),
    "capped GMRES": ("gmres", "general", {"maxiter": 3, "restart": 2}, "iteration limit", "Raise maxiter"),
    "CG where a direction has no length": (
        "linear_cg",
        PLUS_MINUS,
        {},
        "breakdown",
        "The recurrence broke down: A, and M",
    ),
    "MINRES on a nonsymmetric matrix": ("minres", "zero diagonal", {}, "stagnation", "A is not symmetric"),
    "a tolerance beyond rounding": ("linear_cg", "poisson", {"rtol": 1e-18}, "accuracy limit", None),
}
"""What is solved, the status of each column, and what its warning advises; None for none."""


@pytest.mark.parametrize("failure", FAILURES)
def test_a_failure_has_the_same_status_and_the_same_words(failure):
    """Catches: one package that warns of what the other passes over, or two that are silent together."""
    method, given, kwargs, status, advice = FAILURES[failure]
    system = given if isinstance(given, System) else BY_NAME[given]
    (ours, said), (theirs, said_too) = (reports(package, method, system, **kwargs) for package in PACKAGES)
    assert [c.status for c in ours[0].columns] == [c.status for c in theirs[0].columns] == [status, status]
    assert said == said_too
    if advice is None:
        assert said == []
    else:
        (text,) = said
        assert text.startswith(f"{method} on the forward system: {status}; relative residual about 1e")
        assert f". {advice}" in text


DENSE = np.array([[4.0, 1.0, 0.0], [1.0, 3.0, 0.0], [0.0, 1.0, 2.0]])
ONES = np.ones(3)


class Words:
    """One package, with what the wrong calls need."""

    def __init__(self, name):
        if name == "torch":
            import torch

            import tsgu

            self.package, self.solve = tsgu, tsgu.sparse_generic_solve
            self.array = torch.tensor
            self.sparse = lambda dense: torch.tensor(dense).to_sparse()
        else:
            import jax.numpy as jnp
            from jax.experimental.sparse import BCOO

            import tsgu_jax

            self.package, self.solve = tsgu_jax, tsgu_jax.solve
            self.array = jnp.asarray
            self.sparse = lambda dense: BCOO.fromdense(jnp.asarray(dense))

    def solved(self, *args, dense=DENSE, b=ONES, **kwargs):
        return self.solve(self.sparse(dense), self.array(b), *args, **kwargs)

    def matrix(self, row, col, values, shape=(2, 2)):
        row, col = (self.array(np.array(index)) for index in (row, col))
        return self.package.SparseMatrix.from_coo(row, col, self.array(np.array(values)), shape)


WRONG = {
    "not square": lambda p: p.solved(dense=DENSE[:2]),
    "a right-hand side too long": lambda p: p.solved(b=np.ones(4)),
    "a sparse right-hand side": lambda p: p.solve(p.sparse(DENSE), p.sparse(DENSE)),
    "a dense matrix": lambda p: p.solve(p.array(DENSE), p.array(ONES)),
    "a string for a matrix": lambda p: p.solve("A", p.array(ONES)),
    "a list for a right-hand side": lambda p: p.solve(p.sparse(DENSE), [1.0, 2.0, 3.0]),
    "an integer matrix": lambda p: p.solved(dense=DENSE.astype(np.int32)),
    "an integer right-hand side": lambda p: p.solved(b=np.ones(3, np.int32)),
    "the name of a method": lambda p: p.solved("minres"),
    "a number for a method": lambda p: p.solved(3),
    "an unknown keyword": lambda p: p.solved(tol=1),
    "a keyword for direct": lambda p: p.solved(p.package.direct, rtol=1e-3),
    "a library that is not known": lambda p: p.solved(p.package.direct, library="umfpack"),
    "a negative tolerance": lambda p: p.solved(rtol=-1.0),
    "a tolerance in words": lambda p: p.solved(atol="x"),
    "no restart": lambda p: p.solved(p.package.gmres, restart=0),
    "a short x0": lambda p: p.solved(x0=p.array(np.ones(2))),
    "a number for x0": lambda p: p.solved(x0=3),
    "a complex x0": lambda p: p.solved(x0=p.array(ONES + 0j)),
    "a preconditioner of another size": lambda p: p.solved(M=p.array(DENSE[:2])),
    "a number for a preconditioner": lambda p: p.solved(M=3),
    "a negative verify": lambda p: p.solved(lambda A, B: B, verify=-1),
    "settings of another method": lambda p: p.solved(p.package.bicgstab, settings=p.package.LinearCGSettings()),
    "a tolerance given twice": lambda p: p.solved(
        p.package.linear_cg, settings=p.package.LinearCGSettings(cg_tolerance=1e-3), rtol=1e-3
    ),
    "NaN in A": lambda p: p.solved(dense=DENSE * np.nan),
    "infinite B": lambda p: p.solved(b=ONES * np.inf),
    "NaN in x0": lambda p: p.solved(x0=p.array(ONES * np.nan)),
    "a solver that returns a number": lambda p: p.solved(lambda A, B: 3),
    "a solver that returns too little": lambda p: p.solved(lambda A, B: B[:2]),
    "a solver that does not solve": lambda p: p.solved(lambda A, B: 0 * B),
    "two precisions": lambda p: p.solved(p.package.direct, b=ONES.astype(np.float32)),
    "too many values": lambda p: p.matrix([0], [0], [1.0, 2.0]),
    "rows and columns of two lengths": lambda p: p.matrix([0, 1], [0], [1.0, 2.0]),
    "an index out of range": lambda p: p.matrix([0, 5], [0, 0], [1.0, 2.0]),
    "a shape of floats": lambda p: p.matrix([0], [0], [1.0], (2.0, 2)),
    "a negative shape": lambda p: p.matrix([0], [0], [1.0], (-2, 2)),
    "values of another pattern": lambda p: p.package.Pattern([1, 0], [0, 1], (2, 2)).matrix(p.array(ONES)),
    "values of another pattern, to gather": lambda p: p.package.Pattern([1], [0], (2, 2)).gather(p.array(ONES)),
    "a factor too long": lambda p: p.matrix([0], [0], [1.0]) @ p.array(ONES),
}

SAME = {
    "tsgu_jax": "tsgu",
    r"torch\.sparse_coo": "BCOO",
    "sparse COO or CSR": "BCOO or BCSR",
    r"a sparse torch\.Tensor \(COO or CSR\)": "a BCOO, a BCSR",
    "a BCOO, a BCSR or": "a BCOO or a BCSR or",
    "a BCOO, a BCSR ": "a BCOO or a BCSR ",
    r"torch\.strided": "dense",
    r"dense \(strided\)": "dense",
    r"B\.todense": "B.to_dense",
    r"A\.to_sparse_csr\(\)|BCOO\.fromdense\(A\)": "a conversion",
    r"an? (dense )?(torch\.Tensor|jax\.Array or numpy\.ndarray|tensor|array)": "an array",
    r"torch\.(?=(int|float|complex))": "",
    r" on cpu": "",
}
"""The names of things, which differ between the frameworks."""


def said(call, package):
    """What a wrong call raises, warnings included, with the names of things made equal."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", message="Sparse")
        with pytest.raises((Exception, Warning)) as caught:
            call(Words(package))
    text = str(caught.value)
    for ours, common in SAME.items():
        text = re.sub(ours, common, text)
    return caught.type, text


@pytest.mark.parametrize("mistake", WRONG)
def test_a_mistake_meets_the_same_error_in_the_same_words(mistake):
    """Catches: a check that one package lacks, or words that drift apart."""
    ours, theirs = (said(WRONG[mistake], package) for package in ("torch", "jax"))
    assert ours == theirs
