"""The command: from arguments to an exit status."""

import os
import sys
from collections.abc import Sequence

from tsgu._cli._errors import CommandError, reason

PASSED, FAILED, REFUSED, INTERRUPTED, PIPE_CLOSED = 0, 1, 2, 130, 141


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Parameters
    ----------
    argv : sequence of str, optional
        The arguments; those of the process by default.

    Returns
    -------
    int
        Exit status: 0 if every check passes, 1 if one fails, 2 if the command cannot be carried out, 130 if it is
        interrupted.
    """
    try:
        return _run(argv)
    except CommandError as error:
        return _refuse(str(error))
    except MemoryError as error:
        return _refuse(f"out of memory ({reason(error)})")
    except KeyboardInterrupt:
        print("tsgu: interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:  # the reader, such as head, has seen enough; what is left to flush goes nowhere
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return PIPE_CLOSED
    except OSError as error:  # what the system refuses: a name that is too long, a full disk
        return _refuse(reason(error))


def _run(argv: Sequence[str] | None) -> int:
    # Imported here, so that an interruption while NumPy, SciPy and the framework load ends as quietly as any other.
    from tsgu._cli import _arguments, _backend, _files, _job, _plot, _problem, _table
    from tsgu._core.report._log import record

    arguments = _arguments.parse(argv)
    for path in (arguments.save, arguments.plot):
        if path is not None:
            _files.check_writable(path)
    if arguments.plot is not None:
        _plot.check_plot(arguments.plot)
    problem = _problem.build(arguments)
    backends = {name: _backend.load(name) for name in _backend.names(arguments.backend)}
    reference = _job.reference(problem)

    table = _table.Table(problem, both=len(backends) > 1)
    print(_table.title(problem, reference.condition))
    print(table.head(), flush=True)
    outcomes = []
    with record() as log:
        for method in arguments.methods:
            first = None
            for name, backend in backends.items():
                outcomes.append(_job.run(problem, method, name, backend, reference, log))
                print(table.row(outcomes[-1], first), flush=True)
                first = first or outcomes[-1]
    if arguments.save is not None:
        _files.save(arguments.save, outcomes[0].solution.x)
    if arguments.plot is not None:
        _plot.draw(log, arguments.plot)
    for outcome in outcomes:
        for line in outcome.remarks:
            print(f"tsgu: {line}", file=sys.stderr)
    return FAILED if any(outcome.failed for outcome in outcomes) else PASSED


def _refuse(message: str) -> int:
    print(f"tsgu: error: {message}", file=sys.stderr)
    return REFUSED
