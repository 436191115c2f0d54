"""The residual histories as a picture."""

from pathlib import Path

from tsgu._cli._errors import CommandError, reason
from tsgu._core.report._log import Log


def check_plot(path: Path) -> None:
    """Refuse, before time is spent, a picture that could not be drawn: no matplotlib, or an unknown kind of file."""
    try:
        from matplotlib.backend_bases import FigureCanvasBase
    except ImportError as error:
        raise CommandError(f'--plot needs matplotlib: pip install "tsgu[plot]" ({reason(error)})') from error
    kinds = FigureCanvasBase.get_supported_filetypes()
    if path.suffix[1:].lower() not in kinds:
        raise CommandError(f"argument --plot: {path} must end in one of .{', .'.join(sorted(kinds))}")


def draw(log: Log, path: Path) -> None:
    """Write the picture.

    A bare figure draws by Agg, without a display and without touching pyplot's settings.

    Raises
    ------
    CommandError
        If the picture cannot be written.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.2, 4.5), layout="constrained")
    log.plot(figure.subplots())
    try:
        figure.savefig(path, dpi=150)
    except OSError as error:
        raise CommandError(f"{path}: cannot be written: {reason(error)}") from error
