"""The built documentation is read only when asked for: ``python -m pytest tests/site --site=docs/_build/html``."""

from pathlib import Path

import pytest


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    return None if config.getoption("site") else True


@pytest.fixture(scope="session")
def site(pytestconfig: pytest.Config) -> Path:
    """The folder of the built site."""
    folder = (pytestconfig.invocation_params.dir / pytestconfig.getoption("site")).resolve()
    assert (folder / "index.html").is_file(), f"no site in {folder}: build it first"
    return folder
