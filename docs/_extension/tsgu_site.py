"""What the site needs beyond Sphinx: names resolved across namespaces, and examples that leave nothing behind."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from tables import fill


def forget(gallery_conf: dict[str, Any], script: str) -> None:
    """Around each example: no compiled programs pile up, and precision is JAX's default again."""
    if "jax" in sys.modules:
        jax = sys.modules["jax"]
        jax.clear_caches()
        jax.config.update("jax_enable_x64", False)


def resolve_in_parent(app: Sphinx, env: Any, node: Any, contnode: nodes.Element) -> nodes.Element | None:
    """Let a docstring of ``tsgu.precond`` say ``linear_cg``, as a reader of ``help`` would want it, for the method.

    Sphinx looks in the module of the docstring alone; here the modules around it follow.
    """
    if node.get("refdomain") != "py":
        return None
    module = node.get("py:module") or ""
    domain = env.get_domain("py")
    while "." in module:
        module = module.rpartition(".")[0]
        full = f"{module}.{node['reftarget']}"
        if full in domain.objects:
            return domain.resolve_xref(env, node["refdoc"], app.builder, "obj", full, node, contnode)
    return None


def keep_initials(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Let a reference begin with the initial of its author, which reStructuredText takes for the number of a list."""
    lines[:] = [re.sub(r"^(\s*[A-Z])\. ", r"\1\\. ", line) for line in lines]


def fill_in(app: Sphinx, docname: str, source: list[str]) -> None:
    """The placeholders of a page."""
    source[0] = fill(source[0])


def write_help(app: Sphinx) -> None:
    """What the command line says of itself, for its page."""
    command, width = [sys.executable, "-m", "tsgu", "--help"], {"COLUMNS": "96"}
    text = subprocess.run(command, capture_output=True, text=True, check=True, env={**os.environ, **width}).stdout
    path = Path(app.srcdir, "api", "generated", "help.txt")
    path.parent.mkdir(exist_ok=True)
    if not path.exists() or path.read_text() != text:  # a new date would have the page written again
        path.write_text(text)


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("builder-inited", write_help)
    app.connect("source-read", fill_in)
    app.connect("autodoc-process-docstring", keep_initials, priority=900)  # after numpydoc
    app.connect("missing-reference", resolve_in_parent)
    return {"parallel_read_safe": True}
