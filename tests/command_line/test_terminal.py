"""The terminal: the progress of a long solve, and how the process ends.

Nothing here depends on the speed of the machine: a test waits until what it is about has happened.
"""

import os
import pty
import re
import signal
import sys
import threading
import time
from contextlib import suppress
from itertools import count
from types import SimpleNamespace

import pytest

from tests.command_line.helpers import DEADLINE, nonsymmetric, process, write
from tsgu._cli import _backend, _progress, _torch, main
from tsgu._cli._errors import CommandError


def until(happened):
    """Wait for an event; fail after 20 seconds."""
    end = time.monotonic() + 20
    while not happened():
        assert time.monotonic() < end, "waited 20 s for what did not happen"
        time.sleep(0.001)


@pytest.fixture
def terminal(monkeypatch):
    """A terminal: ``connect()`` puts it in place of stderr, ``text()`` returns all that has been written to it."""
    outside, inside = pty.openpty()
    pieces, marks = [], count(1)

    def read():  # all along, as a terminal does; a writer would block on a full one
        with suppress(OSError):  # the other side has been closed
            while piece := os.read(outside, 1 << 16):
                pieces.append(piece.decode())

    def text():
        mark = next(marks)
        os.write(inside, b"|")  # what has been written before it is read before it
        until(lambda: "".join(pieces).count("|") >= mark)
        return "".join(pieces).replace("|", "")

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    with os.fdopen(inside, "w") as stream:
        yield SimpleNamespace(connect=lambda: monkeypatch.setattr(sys, "stderr", stream), text=text)
        monkeypatch.undo()
    reader.join()
    os.close(outside)


@pytest.fixture
def begun(terminal):
    """The threads begun during the test, beside the terminal's, and still at work: whoever may yet write."""
    before = set(threading.enumerate())
    return lambda: set(threading.enumerate()) - before


# Progress


def test_a_long_solve_shows_its_progress_on_a_terminal_and_clears_it(terminal, monkeypatch):
    """Catches: a line that never comes, does not count, or stays in the way of what follows."""
    monkeypatch.setattr(_progress, "PATIENCE", 0.01)
    monkeypatch.setattr(_progress, "time", SimpleNamespace(monotonic=count().__next__))  # a second at each look
    terminal.connect()
    with _progress.progress("solving by minres"):
        until(lambda: terminal.text().count("\r") >= 3)
    nothing, *lines, blank, rest = terminal.text().split("\r")
    assert lines == [f"solving by minres ... {second} s" for second in range(1, len(lines) + 1)]
    assert (nothing, blank.strip(), len(blank), rest) == ("", "", len(lines[-1]), "")


def test_the_command_names_the_method_that_is_at_work(terminal, tmp_path, monkeypatch, tsgu):
    """Catches: a solve that is left out of the progress line."""

    def differentiate(*arguments):
        until(lambda: re.search(r"\rsolving by gmres in torch \.\.\. \d+ s", terminal.text()))
        return _torch.differentiate(*arguments)

    monkeypatch.setattr(_progress, "PATIENCE", 0.01)
    monkeypatch.setattr(_backend, "load", lambda name: SimpleNamespace(differentiate=differentiate))
    terminal.connect()
    assert tsgu(write(tmp_path / "a.mtx", nonsymmetric()), "--method", "gmres").status == 0


def test_a_short_solve_shows_nothing_on_a_terminal(terminal, monkeypatch):
    """Catches: a flicker for each of many short solves."""
    monkeypatch.setattr(_progress, "PATIENCE", 100 * _progress.PATIENCE)  # short on any machine, however busy
    terminal.connect()
    with _progress.progress("solving by minres"):
        time.sleep(0.1)  # not waiting for anything: time for a flicker to show
    assert terminal.text() == ""


def test_nothing_is_shown_where_stderr_is_a_file(begun, tmp_path, monkeypatch):
    """Catches: carriage returns in a log."""
    log = tmp_path / "log"
    monkeypatch.setattr(_progress, "PATIENCE", 0.01)
    with log.open("w") as stream:
        monkeypatch.setattr(sys, "stderr", stream)
        with _progress.progress("solving by minres"):
            until(lambda: not begun() or log.read_text())  # either nobody is there to write, or it has been done
        monkeypatch.undo()
    assert log.read_text() == ""


def test_progress_ends_with_an_error(begun, terminal, monkeypatch):
    """Catches: a thread that goes on writing over the error message."""
    monkeypatch.setattr(_progress, "PATIENCE", 0.01)
    terminal.connect()

    def fail():
        with _progress.progress("solving by minres"):
            until(lambda: "solving by minres" in terminal.text())
            raise CommandError("singular")

    with pytest.raises(CommandError):
        fail()
    shown = terminal.text()
    assert shown.endswith(" \r")
    until(lambda: not begun() or terminal.text() != shown)
    assert terminal.text() == shown


# The process

ENDLESS = """
import runpy
import signal
from tsgu._cli import _torch

signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background inherits that it is ignored

def endless(*arguments, solve=_torch.differentiate):
    while True:
        solve(*arguments)

_torch.differentiate = endless
runpy.run_module("tsgu", run_name="__main__", alter_sys=True)
"""


def test_a_missing_file_ends_the_process_with_status_two_and_one_line():
    """Catches: an exit status that main returns and the process does not."""
    with process("missing.mtx") as command:
        out, err = command.communicate(timeout=DEADLINE)
    assert (command.returncode, out, err) == (2, "", "tsgu: error: missing.mtx: no such file\n")


def test_an_interruption_ends_the_process_with_status_130_and_without_traceback():
    """Catches: a traceback, and an interruption that is taken for an error of the solve."""
    with process("--method", "gmres", "--rtol", "1e-14", "--backend", "torch", interpreter=("-c", ENDLESS)) as command:
        command.stdout.readline()
        assert command.stdout.readline().startswith("method")  # the solve comes next, and does not end by itself
        command.send_signal(signal.SIGINT)
        out, err = command.communicate(timeout=DEADLINE)
    assert (command.returncode, out, err) == (130, "", "tsgu: interrupted\n")


def test_a_reader_that_has_seen_enough_gets_no_traceback():
    """Catches: the traceback of ``python -m tsgu | head -1``."""
    reader, writer = os.pipe()
    os.close(reader)
    with process("--method", "direct", "--backend", "torch", stdout=writer) as command:
        os.close(writer)
        _, err = command.communicate(timeout=DEADLINE)
    assert "Traceback" not in err
    assert command.returncode == 141


def test_help_names_every_option_and_the_default_right_hand_side(capsys):
    """Catches: an option without a word, and a default that nobody can know of."""
    with pytest.raises(SystemExit) as end:
        main(["--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert end.value.code == 0
    for word in (
        "MATRIX",
        "--rhs",
        "--method",
        "--rtol",
        "--dtype",
        "--backend",
        "--save",
        "--plot",
        "all ones",
        "exit status",
    ):
        assert word in text
