"""Interruptions that fall where Python or other packages lose them come out all the same."""

from __future__ import annotations

import contextlib
import signal
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor

import patsy.parse_formula
import pytest

import causalrisk as cr
from causalrisk.cli import main
from causalrisk.inference import covariance
from causalrisk.report.page.html import figure_html
from causalrisk.report.tables import stacked
from causalrisk.runtime.system import interruptions_kept
from causalrisk.runtime.workers import ordered_map
from causalrisk.simulation import study
from tests.conftest import RHS, simulate

pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture(autouse=True)
def as_python_starts():
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    after = signal.signal(signal.SIGINT, before)
    assert after is signal.default_int_handler


def interrupt():
    signal.raise_signal(signal.SIGINT)


def interrupt_and_lose_it(*_):
    """Python prints what the callback of a weak reference raises, and goes on."""

    class Thing:
        pass

    thing = Thing()
    reference = weakref.ref(thing, lambda _: interrupt())
    del thing
    assert reference() is None


def fixed(trial):
    return 1.0, 1.0


def model():
    return cr.IPWRA.from_formula(f"y ~ {RHS}", simulate(150), treat="d")


def before(function, first):
    def both(*args, **keywords):
        first()
        return function(*args, **keywords)

    return both


def test_a_lost_interruption_is_raised_at_the_end_of_the_block():
    interrupt_and_lose_it()
    done = []
    with pytest.raises(KeyboardInterrupt), interruptions_kept():
        interrupt_and_lose_it()
        done.append("the rest")
    assert done == ["the rest"]


def test_any_other_interruption_acts_at_once():
    done = []
    with pytest.raises(KeyboardInterrupt), interruptions_kept():
        interrupt()
        done.append("the rest")
    assert done == []


def test_an_interruption_that_became_an_error_is_an_interruption():
    with pytest.raises(KeyboardInterrupt), interruptions_kept():
        try:
            interrupt()
        except KeyboardInterrupt:
            raise KeyError("what a dictionary says of it") from None
    with pytest.raises(KeyError), interruptions_kept():
        raise KeyError("no interruption")


def test_one_that_holds_results_stays_what_it_is():
    with pytest.raises(cr.FitInterrupted) as caught, interruptions_kept():
        try:
            interrupt()
        except KeyboardInterrupt:
            raise cr.FitInterrupted("the results") from None
    assert caught.value.results == "the results"


def test_blocks_within_blocks_raise_once_at_the_end_of_the_inner_one():
    done = []
    with pytest.raises(KeyboardInterrupt), interruptions_kept():
        with interruptions_kept():
            interrupt_and_lose_it()
            done.append("inner")
        done.append("outer")
    assert done == ["inner"]
    with interruptions_kept():
        done.append("afterwards")
    assert done == ["inner", "afterwards"]


def test_a_handler_of_ones_own_is_called_once_and_decides():
    calls = []
    signal.signal(signal.SIGINT, lambda *call: calls.append(call))
    with interruptions_kept():
        interrupt()
    assert len(calls) == 1
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with interruptions_kept():
        interrupt_and_lose_it()
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    signal.signal(signal.SIGINT, signal.default_int_handler)


def test_other_threads_have_no_handler_to_set():
    done = []

    def work():
        with interruptions_kept():
            done.append("work")

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert done == ["work"]


def test_a_word_table_was_written_in_spite_of_an_interruption(tmp_path, monkeypatch):
    summary = model().fit().summary()
    monkeypatch.setattr(stacked, "_add_table", before(stacked._add_table, interrupt_and_lose_it))
    with pytest.raises(KeyboardInterrupt):
        summary.save(tmp_path / "table.docx")


def test_a_figure_was_drawn_in_spite_of_an_interruption():
    """matplotlib counts its parts by weak references: one interruption of a report in sixteen fell into them."""
    with pytest.raises(KeyboardInterrupt):
        figure_html(interrupt_and_lose_it, "alternative", "caption")


def test_a_plot_was_drawn_in_spite_of_an_interruption():
    from matplotlib.figure import Figure

    res, ax = model().fit(), Figure().subplots()
    ax.get_xlim = before(ax.get_xlim, interrupt_and_lose_it)
    ax.axvline = before(ax.axvline, interrupt_and_lose_it)
    with pytest.raises(KeyboardInterrupt):
        res.plot_balance(ax=ax)


def test_a_formula_was_read_in_spite_of_an_interruption(monkeypatch, tmp_path, capsys):
    """patsy tries whether a term is a number, and takes every exception for no."""
    monkeypatch.setattr(patsy.parse_formula, "_is_a", before(patsy.parse_formula._is_a, interrupt_and_lose_it))
    with pytest.raises(KeyboardInterrupt):
        cr.IPWRA.from_formula("y ~ x1 + x2", simulate(150), treat="d")
    simulate(150).to_csv(tmp_path / "data.csv")
    assert main(["fit", str(tmp_path / "data.csv"), "y ~ x1", "--treat", "d", "--estimator", "IPWRA"]) == 130
    assert capsys.readouterr().err == "causalrisk: interrupted.\n"


@pytest.mark.parametrize("lose", [interrupt_and_lose_it, interrupt], ids=["lost", "at once"])
def test_a_bootstrap_interrupted_within_a_block_keeps_its_estimate(monkeypatch, lose):

    monkeypatch.setattr(covariance, "_refit_block", before(covariance._refit_block, lose))
    with pytest.raises(cr.FitInterrupted) as caught:
        model().fit(cov_type="bootstrap", n_boot=320)
    monkeypatch.undo()
    assert caught.value.results.effect == model().fit().effect


def test_threads_are_handed_their_work_where_no_interruption_can_fall(monkeypatch):
    """In the main thread it left locks of the pool locked: the fit hung, or ended in "release unlocked lock"."""
    threads = []
    submit = ThreadPoolExecutor.submit
    monkeypatch.setattr(
        ThreadPoolExecutor, "submit", lambda *args: threads.append(threading.current_thread()) or submit(*args)
    )
    with ordered_map(abs, 40, 2) as results:
        assert list(results) == list(range(40))
    assert len(threads) == 40
    assert threading.main_thread() not in threads


def test_processes_are_handed_their_work_where_no_interruption_can_fall(monkeypatch):
    """One study in two hundred hung when it was interrupted."""
    threads = []

    @contextlib.contextmanager
    def in_threads(workers):
        with ThreadPoolExecutor(workers) as pool:
            yield pool
        threads.append(threading.current_thread())

    monkeypatch.setattr(study, "worker_processes", in_threads)
    res = study.run_study("strong", n=50, n_sims=50, estimators={"fixed": fixed}, n_jobs=2, reference=None)
    assert len(res.raw) == 50
    assert len(threads) == 1
    assert threads[0] is not threading.main_thread()


def test_threads_end_with_an_interruption():
    count, seen = threading.active_count(), []
    with pytest.raises(KeyboardInterrupt), ordered_map(lambda number: number, 10_000, 2):
        interrupt()
    assert threading.active_count() == count
    with pytest.raises(ZeroDivisionError), ordered_map(lambda number: 1 // (3 - number), 1000, 2) as results:
        seen.extend(results)
    assert len(seen) == 3
    assert threading.active_count() == count
