"""The packages that keep the contract."""

from importlib import import_module

import pytest

from tests.contract.cases import usual

# A case takes milliseconds in torch and, compiled anew, seconds in JAX. There each method meets the systems that tell
# most about it, and all of them with --whole.
TELLING = {
    "linear_cg": {"hermitian definite"},
    "minres": {"hermitian indefinite"},
    "bicgstab": {"complex general"},
    "gmres": {"zero diagonal"},
    "direct": {"complex general", "duplicates", "no unknowns"},
}
TELLING_PROBLEMS = {"complex"}

# Tests that compile anew for JAX, and look at what others look at too. The parity suite holds the derivatives of every
# method on every system, in JAX and in torch, to each other, with a program that serves all systems of a size.
LEFT_TO_WHOLE = {
    "test_solution_equals_the_dense_one",
    "test_single_precision_is_solved_to_single_precision",
    "test_second_derivatives_equal_the_dense_ones_at_every_stored_entry",
    "test_second_derivatives_in_b_equal_the_dense_ones",
    "test_forward_mode_equals_the_dense_one",
    "test_a_compatible_system_has_the_gradient_of_its_second_term_alone",
    "test_the_start_serves_the_forward_solve_alone",
    "test_an_own_method_serves_the_adjoint_of_a_solver_from_outside",
    "test_lsmr_solves_square_systems_too",
    "test_a_rank_that_is_deficient_is_reported_where_a_gradient_is_asked_for",
    "test_scaled_data_scale_the_solution_in_single_precision",
    "test_solution_and_both_gradients_equal_the_dense_ones[jax-vector-complex]",
    "test_a_scaled_loss_scales_the_gradient[jax-complex64-1e-06]",
    "test_a_scaled_loss_scales_the_gradient[jax-complex64-1e-06-minres]",
    "test_a_scaled_loss_scales_the_gradient[jax-complex64-1e-06-bicgstab]",
    "test_a_scaled_loss_scales_the_gradient[jax-complex64-1e-06-gmres]",
}


@pytest.fixture(params=["torch", "jax"])
def package(request):
    """The adapter of a package. JAX is in double precision for the test alone."""
    pytest.importorskip(request.param, reason=f"needs {request.param}")
    adapter = import_module(f"tests.contract.{request.param}_adapter")
    if request.param == "torch":
        yield adapter
        return
    import jax

    adapter.forget_factors()  # which would be found again for an equal matrix
    with jax.enable_x64(True):
        yield adapter
        jax.effects_barrier()  # a report that comes late belongs to the test that caused it


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("whole"):
        return
    dropped = [item for item in items if _is_left_to_whole(item)]
    if dropped:
        config.hook.pytest_deselected(items=dropped)
        items[:] = [item for item in items if item not in set(dropped)]


def _is_left_to_whole(item: pytest.Item) -> bool:
    chosen = getattr(item, "callspec", None)
    if chosen is None or chosen.params.get("package") != "jax":
        return False
    if not LEFT_TO_WHOLE.isdisjoint((item.name, getattr(item, "originalname", None))):
        return True
    if "problem" in chosen.params:
        return chosen.params["problem"].name not in TELLING_PROBLEMS
    if "system" not in chosen.params:
        return False
    method = chosen.params["method"]
    return chosen.params["system"].name not in TELLING.get(method, {usual(method).name})
