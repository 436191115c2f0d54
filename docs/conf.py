"""The documentation site: ``python -m sphinx -W --keep-going -b html docs docs/_build/html``."""

import os
import sys
from importlib.metadata import version as version_of
from pathlib import Path

# Two OpenMP threads on two busy cores can be fifty times slower than one. A setting of the docs, never of the library.
os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).parent / "_extension"))

from tables import filled_copies

import tsgu
import tsgu_jax

project = "tsgu"
author = "the tsgu authors"
project_copyright = f"2026, {author}"
version = release = version_of("tsgu")

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "numpydoc",
    "sphinx.ext.mathjax",
    "sphinx-mathjax-offline",
    "sphinx_gallery.gen_gallery",
    "sphinx_design",
    "sphinx_copybutton",
    "matplotlib.sphinxext.plot_directive",
    "tsgu_site",
]
exclude_patterns = [
    "_build",
    "api/_filled_*",
    "examples",
    "performance",
    "gallery/**/*.ipynb",
    "**/sg_execution_times.rst",
]
templates_path = ["_templates"]

# Pages.
myst_enable_extensions = ["colon_fence", "dollarmath", "deflist"]
myst_heading_anchors = 3
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True
plot_formats = [("png", 120)]
plot_html_show_formats = plot_html_show_source_link = False
plot_rcparams = {"figure.constrained_layout.use": True, "font.size": 10}

# The reference: a page a name, whose docstring is in numpydoc.
autosummary_generate = filled_copies(Path(__file__).parent / "api")
SHARED = [name for name in tsgu_jax.__all__ if getattr(tsgu, name, None) is getattr(tsgu_jax, name)]
autosummary_context = {"shared": SHARED}  # described once, under tsgu
autodoc_typehints = "none"  # the Parameters sections say it, in words
numpydoc_show_class_members = False  # the template of a class shows them
add_module_names = False
python_use_unqualified_type_names = True

# Every example is run, and one that fails lets the build fail.
sphinx_gallery_conf = {
    "examples_dirs": "examples",
    "gallery_dirs": "gallery",
    "filename_pattern": r"\.py$",
    "ignore_pattern": r"(^|/)_[^/]*\.py$",  # what several examples share
    "within_subsection_order": "FileNameSortKey",
    "reset_modules": ("matplotlib", "tsgu_site.forget"),
    "reset_modules_order": "both",
    "backreferences_dir": "api/generated/examples",
    "doc_module": ("tsgu", "tsgu_jax"),
    "inspect_global_variables": False,
    "remove_config_comments": True,
    "write_computation_times": False,
    "show_signature": False,
    "min_reported_time": 1,
}

html_title = "tsgu"
html_theme = "pydata_sphinx_theme"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_sourcelink = False
html_copy_source = False
html_sidebars = {"index": []}
html_theme_options = {
    "logo": {"text": "tsgu"},
    "navbar_align": "left",
    "header_links_before_dropdown": 6,
    "show_toc_level": 2,
    "show_prev_next": True,
    "navigation_with_keys": False,
    "secondary_sidebar_items": {"**": ["page-toc"], "index": []},
    "footer_start": ["copyright"],
    "footer_end": [],
}
