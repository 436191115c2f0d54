"""The command, run in the process of the tests."""

from types import SimpleNamespace

import pytest

from tests.command_line.helpers import rows
from tsgu._cli import main


@pytest.fixture
def tsgu(capsys):
    """Runs the command in this process: exit status, rows of the table as dictionaries, lines of stdout and stderr."""

    def run(*argv):
        backend = [] if "--backend" in argv else ["--backend", "torch"]  # JAX compiles for seconds
        status = main([*map(str, argv), *backend])
        out, err = capsys.readouterr()
        return SimpleNamespace(status=status, rows=rows(out), out=out.splitlines(), err=err.splitlines())

    return run
