"""The packages that keep the contract."""

from importlib import import_module

import pytest

# A case takes milliseconds in torch and, compiled anew, seconds in JAX. There each method meets the systems that tell
# most about it, and all of them with --whole.
TELLING = {
    "linear_cg": {"hermitian definite"},
    "minres": {"hermitian indefinite"},
    "bicgstab": {"complex general"},
    "gmres": {"zero diagonal"},
    "direct": {"complex general", "duplicates", "no unknowns"},
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
    if chosen is None or chosen.params.get("package") != "jax" or "system" not in chosen.params:
        return False
    return chosen.params["system"].name not in TELLING[chosen.params["method"]]
