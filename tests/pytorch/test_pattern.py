"""Pattern: the order of values, what it is built from, and what it survives."""

import copy
import pickle
import subprocess
import sys

import numpy as np
import pytest
import torch

import tsgu

ROW, COL = torch.tensor([2, 0, 1, 0]), torch.tensor([2, 0, 1, 1])
GIVEN = torch.tensor([30.0, 10.0, 20.0, 5.0])
DENSE = torch.tensor([[10.0, 5.0, 0.0], [0.0, 20.0, 0.0], [0.0, 0.0, 30.0]])


def test_values_in_the_order_of_the_positions_land_at_them():
    """Catches: the values of one position at another, without a word."""
    pattern = tsgu.Pattern(ROW, COL, (3, 3))
    A = pattern.matrix(GIVEN)
    assert A.pattern is pattern
    assert torch.equal(A.to_dense(), DENSE)
    assert torch.equal(pattern.matrix(torch.stack([GIVEN, -GIVEN])).to_dense(), torch.stack([DENSE, -DENSE]))
    assert torch.equal(tsgu.SparseMatrix(torch.tensor([10.0, 5.0, 20.0, 30.0]), pattern).to_dense(), DENSE)


def test_a_matrix_from_given_values_is_differentiable_under_transforms():
    """Catches: a way to build a matrix that cuts the graph, or that vmap cannot pass."""
    pattern = tsgu.Pattern([1, 0, 1], [0, 1, 0], (2, 2))
    v = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64, requires_grad=True)
    w = torch.tensor([[1.0, 10.0], [100.0, 1000.0]], dtype=torch.float64)

    def f(v):
        return (pattern.matrix(v).to_dense() ** 2 * w).sum()

    assert torch.autograd.gradcheck(f, v)
    assert torch.autograd.gradgradcheck(f, v)
    twice = torch.func.vmap(torch.func.grad(f))(torch.stack([v.detach(), 2 * v.detach()]))
    torch.testing.assert_close(twice[0], torch.tensor([800.0, 40.0, 800.0], dtype=torch.float64))
    torch.testing.assert_close(twice[1], 2 * twice[0])


def test_the_repr_says_when_the_two_orders_differ():
    """Catches: a reader who cannot see that values will be permuted, or that some are added."""
    assert repr(tsgu.Pattern([0, 1], [1, 0], (2, 2))) == "Pattern(shape=(2, 2), nnz=2, device=cpu)"
    told = "Pattern(shape=(2, 2), nnz=2, device=cpu, built from 2 entries in another order)"
    assert repr(tsgu.Pattern([1, 0], [0, 1], (2, 2))) == told
    assert "nnz=1, device=cpu, built from 2 entries in another order" in repr(tsgu.Pattern([1, 1], [0, 0], (2, 2)))


@pytest.mark.parametrize(
    "make",
    [list, tuple, lambda x: np.array(x, np.int32), lambda x: np.array(x, np.uint64), lambda x: torch.tensor(x).int()],
)
@pytest.mark.parametrize("shape", [[3, 3], torch.Size((3, 3)), (np.int64(3), np.int32(3)), np.array([3, 3])])
def test_positions_and_shapes_in_every_form_that_can_be_meant(make, shape):
    """Catches: AttributeError: 'list' object has no attribute 'dim'."""
    row, col = make(ROW.tolist()), make(COL.tolist())
    assert torch.equal(tsgu.Pattern(row, col, shape).matrix(GIVEN).to_dense(), DENSE)
    assert torch.equal(tsgu.SparseMatrix.from_coo(row, col, GIVEN, shape).to_dense(), DENSE)


def test_no_positions_at_all_may_be_an_empty_list():
    """Catches: floats, which NumPy makes of an empty list."""
    assert tsgu.Pattern([], [], (2, 3)).nnz == 0
    assert tsgu.SparseMatrix.from_coo([], [], torch.zeros(0), (2, 3)).to_dense().shape == (2, 3)


def test_positions_without_a_device_go_where_the_values_are():
    """Catches: Indices of NumPy that put the pattern on the CPU, where the values are not."""
    assert tsgu.SparseMatrix.from_coo([0], [0], torch.ones(1, device="meta"), (1, 1)).pattern.device.type == "meta"


@pytest.mark.parametrize(
    ("index", "got"),
    [
        ([0.0, 1.0], "dtype float64"),
        ([True, False], "dtype bool"),
        (torch.tensor([0.0, 1.0]), r"dtype torch\.float32"),
        (torch.tensor([True, False]), r"dtype torch\.bool"),
        (np.array(["0", "1"]), "dtype <U1"),
        ([[0], [0, 1]], "a ragged list"),
        (1, "int"),
        ("01", "str"),
    ],
)
def test_positions_that_are_no_whole_numbers_are_refused_by_name(index, got):
    """Catches: a mask or a float that is cut to an integer."""
    accepted = r"must hold whole numbers, as a torch\.Tensor, a NumPy array or a list; got "
    with pytest.raises(TypeError, match=f"row {accepted}{got}"):
        tsgu.Pattern(index, [0, 1], (2, 2))
    with pytest.raises(TypeError, match=f"col {accepted}{got}"):
        tsgu.SparseMatrix.from_coo([0, 1], index, torch.ones(2), (2, 2))


@pytest.mark.parametrize("shape", [2, (2,), (2, 2, 2), (2.0, 2), (True, 2), "22", (torch.tensor(True), 2)])
def test_a_shape_that_is_not_two_whole_numbers_is_refused(shape):
    """Catches: int(2.7), or IndexError: tuple index out of range."""
    with pytest.raises(TypeError, match=r"shape must be two whole numbers, not negative, \(m, n\); got "):
        tsgu.Pattern([0], [0], shape)


def test_given_values_that_do_not_fit_are_refused():
    """Catches: index_select, which is content with too many values and leaves the last ones out."""
    pattern = tsgu.Pattern(ROW, COL, (3, 3))
    one_each = "one value per position that the pattern was built from; got"
    for wrong, words in (
        (torch.ones(5), rf"given must have shape \(4,\) or \(batch, 4\), {one_each} \(5,\)"),
        (torch.ones(2, 1, 4), rf"given must have shape \(4,\) or \(batch, 4\), {one_each} \(2, 1, 4\)"),
        (torch.tensor(1.0), rf"given must have shape .* {one_each} \(\)"),
        ([1.0] * 4, "given must be a torch.Tensor; got list"),
        (torch.ones(4, device="meta"), "given must be on the device of the pattern, cpu; got meta. Move the pattern"),
    ):
        with pytest.raises(ValueError, match=words):
            pattern.matrix(wrong)
    with pytest.raises(ValueError, match=rf"given must have shape \(\.\.\., 4\), {one_each} \(3,\)"):
        pattern.gather(torch.ones(3))
    with pytest.raises(TypeError, match="given must be dense"):
        pattern.matrix(torch.ones(4).to_sparse())


def test_a_pattern_on_another_device_is_made_once():
    """Catches: Index tensors copied to the device in every forward pass."""
    pattern = tsgu.Pattern(ROW, COL, (3, 3))
    assert pattern.to("cpu") is pattern
    there = pattern.to("meta")
    assert there.device.type == "meta"
    assert pattern.to(torch.device("meta")) is there
    assert there.to("cpu") is pattern


def test_a_pattern_survives_being_used_first_under_inference_mode():
    """Catches: a validation pass before the first step, whose index tensors no gradient can be saved with."""
    pattern = tsgu.Pattern(ROW, COL, (3, 3))
    v = GIVEN.double().requires_grad_()
    b = torch.ones(3, dtype=torch.float64)

    def uses():
        A = pattern.matrix(v)
        x = tsgu.sparse_generic_solve(A, b, solve=tsgu.direct) + tsgu.sparse_generic_solve(A.T, b, solve=tsgu.gmres)
        return (x + A @ b + A.to_dense().sum(0)).sum() + pattern._pick(v, pattern).sum()

    with torch.inference_mode():
        expected = uses()
    value = uses()
    torch.testing.assert_close(value.detach(), expected.clone())
    (gradient,) = torch.autograd.grad(value, v)
    assert gradient.isfinite().all()


def test_copies_share_a_pattern_and_pickles_restore_it(tmp_path):
    """Catches: a copied module that analyses again; a process that unpickles a pattern and has no matrix to make of
    it."""
    pattern = tsgu.Pattern(ROW, COL, (3, 3))
    A = pattern.matrix(GIVEN)
    assert copy.deepcopy(pattern) is copy.copy(pattern) is pattern
    assert copy.deepcopy(A).pattern is pattern
    assert copy.deepcopy(A).values is not A.values
    assert torch.equal(pickle.loads(pickle.dumps(A)).to_dense(), DENSE)
    (tmp_path / "pattern").write_bytes(pickle.dumps(pattern))
    code = f"import pickle, torch; P = pickle.load(open({str(tmp_path / 'pattern')!r}, 'rb')); v = {GIVEN.tolist()}"
    code += "; print(P.matrix(torch.tensor(v)).to_dense().tolist())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(DENSE.tolist())


def test_the_state_is_loaded_with_weights_only(tmp_path):
    """Catches: a checkpoint that asks its reader to trust any code in it; an order that is lost on the way."""
    pattern = tsgu.Pattern([1, 0, 1], [0, 1, 0], (2, 2))
    A = pattern.matrix(torch.tensor([1.0, 2.0, 3.0]))
    torch.save({"pattern": pattern.state(), "A": A.state()}, tmp_path / "state")
    state = torch.load(tmp_path / "state", weights_only=True)
    again = tsgu.Pattern(**state["pattern"])
    expected = torch.tensor([[0.0, 2.0], [4.0, 0.0]])
    assert torch.equal(again.matrix(torch.tensor([1.0, 2.0, 3.0])).to_dense(), expected)
    assert torch.equal(tsgu.SparseMatrix.from_coo(**state["A"]).to_dense(), expected)
    unsorted = tsgu.Pattern(**tsgu.Pattern(ROW, COL, (3, 3)).state())
    assert torch.equal(unsorted.matrix(GIVEN).to_dense(), DENSE)
