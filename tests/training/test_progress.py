import io

import pytest
from rich.console import Console

from jfusion.training import progress
from jfusion.training.progress import Display


@pytest.fixture
def clock(monkeypatch):
    class Clock:
        now = 0.0

        def monotonic(self):
            return self.now

    clock = Clock()
    monkeypatch.setattr(progress, "time", clock)
    return clock


def log(**options):
    """A display that writes into a log file, and that file."""
    file = io.StringIO()
    console = Console(file=file, force_terminal=False, width=80)
    return Display(console=console, **options), file


def terminal():
    file = io.StringIO()
    console = Console(file=file, force_terminal=True, force_interactive=True, width=100)
    return Display(console=console), file


def test_lines_now_and_then_in_a_log(clock):
    display, file = log(seconds=10)
    with display.steps(860, done=119) as steps:
        clock.now = 11
        steps.advance(epoch=3, loss=0.21345, samples_per_second=1234.4)
        clock.now = 20.9  # too soon
        steps.advance()
        clock.now = 21
        steps.advance(loss=None)  # the last known value is shown
        clock.now = 32
        steps.advance(8, loss=1e-5)
    assert file.getvalue().splitlines() == [
        "step 120/860 epoch 3 loss 0.213 1,234 samples/s",
        "step 122/860 epoch 3 loss 0.213 1,234 samples/s",
        "step 130/860 epoch 3 loss 1e-05 1,234 samples/s",
    ]


def test_work_of_a_moment_leaves_no_line(clock):
    display, file = log(seconds=10)
    with display.steps(3, "val") as steps:
        for _ in range(3):
            steps.advance()
    assert not file.getvalue()


def test_messages_are_printed_as_they_are():
    display, file = log()
    text = "[CLS] of [red]poster[/red]: /a/" + "long/" * 40
    display.message(text)
    assert file.getvalue() == text + "\n", "no markup, no wrapping"


def test_bars_on_a_terminal():
    display, file = terminal()
    with display.steps(20) as steps:
        steps.advance(5, epoch=1, loss=0.5)
        with display.steps(4, "val") as inner:
            inner.advance(4)
        display.message("epoch 1: macro_f1 0.812")
    shown = file.getvalue()
    assert "5/20" in shown and "epoch 1 loss 0.5" in shown and "val" in shown
    assert "epoch 1: macro_f1 0.812\n" in shown
    assert shown.count("\x1b[?25l") == shown.count("\x1b[?25h") == 1, "the cursor must come back"


def test_bars_again_and_after_an_error():
    display, file = terminal()
    with pytest.raises(KeyError), display.steps(2):
        raise KeyError
    with display.steps(7) as steps:
        steps.advance(7)
        with display.steps(1):  # a second bar redraws the first at once
            pass
    assert "7/7" in file.getvalue()
    assert file.getvalue().count("\x1b[?25l") == file.getvalue().count("\x1b[?25h") == 2


@pytest.mark.parametrize("make", [log, terminal])
def test_other_processes_show_nothing(make, capsys):
    console = make()[0]._console
    display = Display(active=False, console=console, seconds=0)
    display.message("hello")
    display.show("table")
    with display.steps(2) as steps:
        steps.advance(loss=0.5)
    assert not console.file.getvalue() and not capsys.readouterr().out


def test_messages_go_to_standard_error_and_results_to_standard_output(capsys):
    display = Display()
    display.message("working")
    display.show("result")
    captured = capsys.readouterr()
    assert captured.err == "working\n" and captured.out == "result\n"
