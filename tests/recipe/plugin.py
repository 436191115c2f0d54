"""A method that the packages do not have, added as the page on contributing says; to be loaded by ``pytest -p``."""

import sys
from importlib import import_module
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import tsgu  # noqa: F401 - before the list grows, since the new method has no file in the package to be read from
import tsgu_jax  # noqa: F401
from tsgu._core.methods import _registry

NAME, MODULE = "conjugate_residuals", "_conjugate_residuals"


def add() -> None:
    """The method in both packages: its file, its entry in the list of methods, its name."""
    use = "Hermitian positive definite"
    entry = _registry.MethodTraits(NAME, MODULE, hermitian=True, definite=True, use=use, memory="6", work="1 product")
    _registry.METHODS.append(entry)
    for package in ("tsgu", "tsgu_jax"):
        name = f"{package}._methods.{MODULE}"
        spec = spec_from_file_location(name, Path(__file__).parent / f"{package}_method.py")
        assert spec is not None
        assert spec.loader is not None
        sys.modules[name] = module = module_from_spec(spec)
        spec.loader.exec_module(module)
        setattr(import_module(package), NAME, getattr(module, NAME))


add()
