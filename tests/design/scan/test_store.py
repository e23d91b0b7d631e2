"""Coded rows of a scan that are kept: how often the data are read, where the rows are, and that they are the same."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import tempfile
from types import SimpleNamespace

import joblib
import numpy as np
import pandas as pd
import pytest

from causalrisk import AIPW, IPWRA, JRE, DesignError, DesignWarning, Hajek, OptionError, scan
from causalrisk.design.scan import source
from causalrisk.design.scan.encode import Store
from causalrisk.numerics.multiplicities import CHUNK
from causalrisk.runtime.system import is_in_memory
from tests.benchmarks import bench_scan
from tests.conftest import simulate
from tests.dask_stub import cluster

N, F = 3000, "y ~ x1 + C(g)"


@pytest.fixture(scope="module")
def data():
    rows, frame = np.arange(N), simulate(n=N, seed=5)
    return frame.assign(
        g=np.array(["b", "a", "c"])[rows % 3],
        low=(frame.y > frame.y.median()) * 1,
        w=1.0 + rows % 2,
        unit=rows % 90,
        x2=frame.x2.where(rows % 50 > 0),
    )


class Read:
    """Frames of 700 rows, by a function that counts how often it begins."""

    def __init__(self, frame):
        self.frame, self.times = frame, -1  # once for the names of the columns

    def __call__(self):
        self.times += 1
        return (self.frame[k : k + 700] for k in range(0, len(self.frame), 700))


SPLINES = "y ~ bs(x1, df=4) + cr(x3, df=3, constraints='center')"
READINGS = {
    "IPWRA": (IPWRA, F, {}, {}, 2),
    "JRE": (JRE, F, {}, {"cov_type": "robust", "n_replicates": 20}, 2),
    "JRE, logit, bootstrap": (
        JRE, "low ~ x1", {"family": "binomial"}, {"n_boot": 20, "n_replicates": 5, "anchor": 1.0}, 2
    ),
    "clusters, weights, bootstrap": (
        AIPW, F, {"cluster": "unit", "weights": "w", "weight_type": "probability", "target": "overlap"},
        {"n_boot": 20}, 2
    ),
    "trimming": (IPWRA, F, {"trim": "crump"}, {}, 2),
    "splines": (IPWRA, SPLINES, {}, {}, 4),
    "target frame": (Hajek, F, {"target": "frame"}, {}, 2),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore::causalrisk.CausalRiskWarning")
@pytest.mark.parametrize("name", READINGS)
def test_data_are_read_two_to_four_times(data, name):
    model, formula, options, fit, times = READINGS[name]
    if "target" in options and options["target"] == "frame":
        options = options | {"target": data[data.x1 > 0][::9]}
    read = Read(data)
    res = model.from_formula(formula, scan(read, block_rows=1000), treat="d", **options).fit(**fit)
    res.overlap()
    assert read.times == times
    res.balance()
    assert read.times > times  # its covariates are no columns of a design


def every(res):
    """Point estimates, covariances and resamples of a fit."""
    boot = [res.boot_params] if res.cov_type == "bootstrap" else []
    return np.concatenate([np.ravel(values) for values in (res.params, res.cov_params(), res.outcome_params, *boot)])


FITS = {
    "IPWRA": (IPWRA, F, {"propensity": "x1 + x2"}, {}),
    "JRE": (JRE, F, {}, {"n_boot": 20, "n_replicates": 20, "anchor": 1.0}),
    "trimmed, weights": (AIPW, F, {"weights": "w", "weight_type": "probability", "trim": (0.3, 0.7)}, {"n_boot": 20}),
    "trimmed, clusters": (IPWRA, F, {"cluster": "unit", "trim": "crump", "propensity": "x1 + x2"}, {"n_boot": 20}),
    "offset": (IPWRA, "y ~ x1", {"offset": "x3", "weights": "w", "weight_type": "frequency"}, {"n_boot": 20}),
    "a column dropped": (IPWRA, "y ~ x1 + C(g) + I(2 * x1)", {"propensity": "C(g) + I(3 * x1) + x1"}, {}),
}


@pytest.mark.filterwarnings("ignore::causalrisk.CausalRiskWarning")
@pytest.mark.parametrize("name", FITS)
def test_rows_are_the_same_wherever_they_are_kept(data, name, tmp_path):
    model, formula, options, fit = FITS[name]

    def fitted(**kept):
        given = scan(Read(data), block_rows=1500, **kept)
        return model.from_formula(formula, given, treat="d", **options).fit(**fit)

    memory, disk, nothing = fitted(keep="memory"), fitted(keep="disk", folder=tmp_path), fitted(keep="nothing")
    np.testing.assert_array_equal(every(disk), every(memory))
    np.testing.assert_allclose(every(nothing), every(memory), rtol=1e-6, atol=1e-9)
    tables = [
        (res.balance(), pd.read_parquet(res.write_units(tmp_path / "units.parquet"))) for res in (memory, disk, nothing)
    ]
    for other in tables[1:]:
        for ours, theirs in zip(other, tables[0], strict=True):
            pd.testing.assert_frame_equal(ours, theirs, rtol=1e-9)


def parts_of(design):
    fields = ("y", "X", "Z", "arm", "weights", "cluster", "offset", "row", "position")
    found = {name: [getattr(block, name) for block in design.blocks()] for name in fields}
    return {name: np.concatenate(values) for name, values in found.items() if values[0] is not None}


@pytest.mark.parametrize("kept", ["memory", "disk"])
@pytest.mark.parametrize("trim", [False, True])
def test_blocks_are_ranges_of_chunks_of_the_rows(data, kept, trim):
    options = {"weights": "w", "weight_type": "probability", "cluster": "unit", "offset": "x3", "propensity": "x2"}
    designs = [
        IPWRA.from_formula("y ~ x1", scan(Read(data), block_rows=rows, keep=keep), treat="d", **options).design
        for rows, keep in ((2500, kept), (250_000, "nothing"))
    ]
    if trim:
        designs = [design.trimmed(_positive, "x1 > 0", 1, None) for design in designs]
    stored, read = map(parts_of, designs)
    assert stored.keys() == read.keys()
    for name, values in stored.items():
        np.testing.assert_allclose(values, read[name], rtol=1e-15)  # weights over their mean after trimming
        assert values.dtype == read[name].dtype
    left = np.flatnonzero(data.x2.notna() & ((data.x1 > 0) | (not trim)))
    np.testing.assert_array_equal(stored["row"], left)
    np.testing.assert_array_equal(stored["position"], np.arange(len(left)))
    starts = [int(block.position[0]) for block in designs[0].blocks()]
    assert starts == ([0] if trim else [0, 2 * CHUNK])
    assert designs[0].blocks().__next__().X.base is not None  # no copy


def _positive(block):
    return block.X[:, 1] > 0


@pytest.mark.parametrize(("n", "most", "sizes"), [
    (3000, 2500, [2048, 952]), (4096, 3072, [2048, 2048]), (5, 1, [5]), (2049, 1, [1024, 1024, 1]), (1024, 9999, [1024])
])  # fmt: skip
def test_sizes_of_blocks(n, most, sizes):
    columns = {name: np.arange(n) for name in ("y", "X", "arm", "row")}
    blocks = Store(columns, [], most).blocks()
    assert [len(block.y) for block in blocks] == sizes


def test_a_block_names_the_file_of_each_row(data, tmp_path):
    """Also where rows before it are left out."""
    broken = data.assign(low=data.low.where(data.index != 2501, 2))
    for k in range(3):
        broken[1000 * k : 1000 * (k + 1)].to_parquet(tmp_path / f"{k}.parquet")
    model = IPWRA.from_formula("low ~ x2", scan(f"{tmp_path}/*.parquet"), treat="d", family="binomial")
    with pytest.raises(DesignError, match=r"2\.parquet, rows 0 to 999: outcome 'low' has 1 values"):
        model.fit()


@pytest.mark.parametrize("keep", ["memory", "disk"])
@pytest.mark.parametrize("how", ["threads", "loky", "cluster"])
def test_workers_of_kept_rows_change_no_digit(data, keep, how):
    def fitted(n_jobs=1):
        source = scan(Read(data), block_rows=CHUNK, keep=keep)
        model = IPWRA.from_formula("y ~ x2", source, treat="d", propensity="x1", cluster="unit", trim=(0.05, 0.95))
        return every(model.fit(n_boot=3, n_jobs=n_jobs))

    alone = fitted()
    with cluster("works") if how == "cluster" else joblib.parallel_config("loky" if how == "loky" else "threading"):
        np.testing.assert_array_equal(fitted(n_jobs=2), alone)


# --- where rows are kept ------------------------------------------------------------------------------------------


def model_of(data, **options):
    return IPWRA.from_formula(F, scan([data], **options), treat="d")


def test_rows_that_fit_nowhere_are_read_again_with_a_note(data):
    read = Read(data)
    with pytest.warns(DesignWarning, match=r"every pass reads the data again.*Type  folder="):
        model = IPWRA.from_formula(F, scan(read, budget=1000), treat="d")
    before = read.times
    assert any("every pass reads" in note for note in model.fit()._record.notes)
    assert read.times > before + 5
    for keep in ("memory", "disk"):
        with pytest.raises(DesignError, match=r'the coded rows take .*\nType  keep="auto"'):
            model_of(data, keep=keep, budget=1000)


def test_rows_are_kept_in_memory_first_then_on_the_disk(monkeypatch):
    monkeypatch.setattr(source, "free_memory", lambda: 4e9)
    monkeypatch.setattr(source, "is_in_memory", lambda folder: False)
    monkeypatch.setattr(source.shutil, "disk_usage", lambda folder: SimpleNamespace(free=6e9))
    auto = source.Keeping()
    assert [auto.chosen(size)[0] for size in (1e9, 2e9, 3e9, 4e9)] == ["memory", "disk", "disk", "nothing"]
    small = source.Keeping(budget=5e9)
    assert [small.chosen(size)[0] for size in (4e9, 5e9, 5.1e9)] == ["memory", "disk", "nothing"]
    assert small.chosen(2e9, taken=4e9)[0] == "nothing"  # of trimmed rows beside the others
    assert source.Keeping(keep="disk").chosen(1.0)[0] == "disk"
    assert source.Keeping(keep="nothing").chosen(1.0) == ("nothing", "")
    monkeypatch.setattr(source, "is_in_memory", lambda folder: True)
    assert auto.chosen(2e9)[0] == "nothing"
    assert source.Keeping(folder=tempfile.gettempdir()).chosen(2e9)[0] == "disk"


@pytest.mark.parametrize("folder", ["no/such/folder", os.devnull, "/proc"])
def test_a_folder_that_cannot_be_written_to(data, folder):
    with pytest.raises(OptionError, match=r"cannot hold temporary files[^$]*Type  folder="):
        scan([data], folder=folder)


@pytest.mark.parametrize("options", [{"keep": "ram"}, {"keep": True}, {"budget": 0}, {"budget": "2GB"}])
def test_options_that_are_none(data, options):
    with pytest.raises(OptionError, match=r"Type  (keep|budget)="):
        scan([data], **options)


@pytest.mark.parametrize("keep", ["auto", "disk"])
def test_a_disk_that_is_full_while_rows_are_written(data, monkeypatch, keep):
    """The kernel's own: a device that is always full."""
    if not os.path.exists("/dev/full"):
        pytest.skip("there is no /dev/full")
    monkeypatch.setattr(source, "OF_MEMORY", 0.0)
    monkeypatch.setattr(source, "is_in_memory", lambda folder: False)
    monkeypatch.setattr(
        "causalrisk.design.scan.encode.tempfile.TemporaryFile",
        lambda **options: open("/dev/full", "wb", buffering=0),  # noqa: SIM115
    )
    if keep == "disk":
        with pytest.raises(DesignError, match=r"cannot be written to .*No space left"):
            model_of(data, keep=keep)
        return
    with pytest.warns(DesignWarning, match=r"cannot be written to .*No space left.*every pass reads"):
        full = model_of(data)
    np.testing.assert_allclose(full.fit().params, model_of(data, keep="memory", budget=1e9).fit().params, rtol=1e-12)


def test_folders_in_memory(tmp_path):
    mounts = tmp_path / "mounts"
    mounts.write_text(f"/dev/sda / ext4 rw 0 0\ntmpfs {tmp_path} tmpfs rw 0 0\n/dev/sdb {tmp_path}/disk ext4 rw 0 0\n")
    found = [is_in_memory(str(folder), str(mounts)) for folder in ("/", tmp_path, tmp_path / "a", tmp_path / "disk/b")]
    assert found == [False, True, True, False]
    assert not is_in_memory("/", "/no/such/file")


def files_of(process, folder):
    """Files of a folder that a process has mapped, with or without a name."""
    with open(f"/proc/{process}/maps") as maps:
        return [line for line in maps if str(folder) in line]


@pytest.mark.skipif(not os.path.exists("/proc/self/maps"), reason="Linux says what a process has mapped")
def test_what_is_on_the_disk_goes_with_the_model(data, tmp_path):
    model = model_of(data, keep="disk", folder=tmp_path)
    assert len(files_of("self", tmp_path)) == 4  # y, X, arm, row
    assert not list(tmp_path.iterdir())
    res = model.fit()
    again = pickle.loads(pickle.dumps(res))
    del model, res
    assert files_of("self", tmp_path) == []
    assert again.nobs == N


SCRIPT = """
import sys, time
from causalrisk import IPWRA, datasets, scan
births = datasets.load_cattaneo2()
model = IPWRA.from_formula("bweight ~ mage", scan([births], keep="disk", folder=sys.argv[1]), treat="mbsmoke")
print("kept", flush=True)
time.sleep(600)
"""


@pytest.mark.skipif(not os.path.exists("/proc/self/maps"), reason="Linux says what a process has mapped")
def test_a_process_that_is_killed_leaves_nothing(tmp_path):
    with subprocess.Popen([sys.executable, "-c", SCRIPT, str(tmp_path)], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout.readline() == "kept\n"
            assert files_of(process.pid, tmp_path)
        finally:
            process.send_signal(signal.SIGKILL)
    assert not list(tmp_path.iterdir())


def test_the_bench_of_scans_counts_two_readings(tmp_path):
    """It is a command of the pages, and looks into modules by their names."""
    bench_scan.write(tmp_path, rows=2000, covariates=6)
    command = [sys.executable, "-m", "tests.benchmarks.bench_scan", "--folder", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "files read 2 times" in done.stdout
