"""The packages that keep the contract."""

import pytest

from tests.contract import torch_adapter


@pytest.fixture(params=[torch_adapter], ids=lambda module: module.NAME)
def package(request):
    """The adapter of a package."""
    return request.param
