"""Sphinx's settings: ``make docs``."""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import asm_libcalls  # noqa: E402 (found by the path above)

project = "asm_libcalls"
author = "The asm_libcalls developers"
copyright = f"2026, {author}"  # noqa: A001 (Sphinx's name for it)
version = release = asm_libcalls.__version__

extensions = ["myst_parser", "numpydoc", "sphinx.ext.autodoc"]
exclude_patterns = ["_build"]

# Pages are Markdown, with links to their headings.
myst_heading_anchors = 3
myst_enable_extensions = ["deflist"]  # the glossary

# The API reference: what numpydoc's docstrings say, in the source's order.
autodoc_member_order = "bysource"
autodoc_typehints = "none"  # the docstrings name the types, in words
autodoc_mock_imports = ["llvmlite", "numba"]  # large, and only our own signatures are shown
autodoc_default_options = {"members": True}
numpydoc_show_class_members = False  # autodoc lists them

html_theme = "furo"
html_title = f"asm_libcalls {release}"
html_static_path = ["static"]
html_css_files = ["extra.css"]
