"""What the pages say of each method and preconditioner, filled in from the lists that the packages work with."""

from collections.abc import Iterable
from pathlib import Path

from tsgu._core.methods import _registry


def fill(text: str) -> str:
    """A page with its placeholders filled in.

    ``{{table of methods}}`` becomes a table in Markdown, ``{{methods}}`` the names for ``autosummary`` in
    reStructuredText, one a line; likewise for preconditioners.
    """
    fillings = {
        "{{table of methods}}": _registry.method_table,
        "{{table of preconditioners}}": _registry.preconditioner_table,
        "   {{methods}}": lambda: names(_registry.METHODS),
        "   {{preconditioners}}": lambda: names(_registry.PRECONDITIONERS),
    }
    for placeholder, filling in fillings.items():
        if placeholder in text:
            text = text.replace(placeholder, filling())
    return text


def names(entries: Iterable[_registry.MethodTraits | _registry.PreconditionerTraits]) -> str:
    """The names as entries of a directive, one a line."""
    return "\n".join(f"   {entry.name}" for entry in entries)


def filled_copies(folder: Path) -> list[str]:
    """Copies of the pages of a folder, filled in, beside those with placeholders; their names.

    ``autosummary`` looks for what to write pages of in files, before any page is read.
    """
    copies = []
    for page in sorted(folder.glob("[!_]*.rst")):
        text, copy = fill(page.read_text()), folder / f"_filled_{page.name}"
        if not copy.exists() or copy.read_text() != text:
            copy.write_text(text)
        copies.append(str(copy))
    return copies
