"""The command line does what tl does, and says what is wrong in one line."""

from __future__ import annotations

import hashlib
import inspect
import json
import re
import subprocess
import sys
from pathlib import Path

import anndata
import numpy as np
import pytest
import scanpy as sc

import scot_hycnn as sh
from scot_hycnn import cli

pytestmark = [
    pytest.mark.filterwarnings("ignore:solver.fit"),
    pytest.mark.filterwarnings("ignore:Writing zarr v2"),
]
FIT = ["--source", "control", "--target", "IFN-beta"]
FAST = [*FIT, "--n-pcs", "4", "--max-steps", "8", "--hidden", "6,6", "--n-ensemble", "2", "--seed", "3"]
FAST_KEYWORDS = {"n_pcs": 4, "max_steps": 8, "hidden": (6, 6), "n_ensemble": 2, "rng": 3}


@pytest.fixture
def folder(tmp_path):
    adata = sh.datasets.pbmc_planted(n_cells=120)[:, :20].copy()
    adata.write_h5ad(tmp_path / "in.h5ad")
    adata.write_zarr(tmp_path / "in.zarr")
    return tmp_path


@pytest.fixture
def run(monkeypatch, capsys):
    """Run the command line in this process; return its exit code, output and messages."""

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["scot-hycnn", *map(str, arguments)])
        before = sc.settings.verbosity
        code = 0
        try:
            cli.main()
        except SystemExit as stop:
            code = stop.code or 0
        finally:
            sc.settings.verbosity = before
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


def read(path):
    return anndata.read_h5ad(path) if path.suffix == ".h5ad" else anndata.read_zarr(path)


@pytest.mark.parametrize(("source", "result"), [(".h5ad", ".h5ad"), (".zarr", ".zarr"), (".h5ad", ".zarr")])
def test_the_same_bits_as_tl(folder, run, source, result):
    code, _, err = run("fit", folder / f"in{source}", *FAST, "--inverse", "-o", folder / f"out{result}")
    assert code == 0, err
    adata = read(folder / "in.h5ad")
    sh.tl.hycnn_ot(adata, "control", "IFN-beta", inverse=True, **FAST_KEYWORDS)
    out = read(folder / f"out{result}")
    for slot in ("X_hycnn_ot", "X_hycnn_ot_inverse"):
        np.testing.assert_array_equal(out.obsm[slot], adata.obsm[slot])
    theta = [a.uns["hycnn_ot"]["models"]["IFN-beta"]["theta"] for a in (out, adata)]
    np.testing.assert_array_equal(*theta)

    code, _, err = run(
        "transport", folder / "in.h5ad", "--model", folder / f"out{result}", "--t", "0.5", "-o", folder / "half.h5ad"
    )
    assert code == 0, err
    fresh = read(folder / "in.h5ad")
    sh.tl.transport(fresh, model=adata, t=0.5)
    np.testing.assert_array_equal(read(folder / "half.h5ad").obsm["X_hycnn_ot"], fresh.obsm["X_hycnn_ot"])


@pytest.mark.filterwarnings("default:Nothing says whether")
def test_a_saved_map(folder, run):
    adata = read(folder / "in.h5ad")
    sh.tl.hycnn_ot(adata, "control", "IFN-beta", potential="gaussian")
    sh.get.model(adata).save(folder / "map.safetensors")
    options = ("--model", folder / "map.safetensors", "--direction", "inverse", "--key-added", "back")
    code, _, err = run("transport", folder / "in.h5ad", *options, "-o", folder / "out.h5ad")
    assert code == 0, err
    is_target = (adata.obs["condition"] == "IFN-beta").to_numpy()
    expected = sh.get.model(adata).inverse(adata.obsm["X_pca"][is_target])
    moved = read(folder / "out.h5ad").obsm["X_back_inverse"]
    np.testing.assert_array_equal(moved[is_target], expected)
    assert np.isnan(moved[~is_target]).all()


def test_several_targets(folder, run):
    adata = read(folder / "in.h5ad")
    labels = adata.obs["condition"].astype(str)
    labels.iloc[np.flatnonzero(labels == "IFN-beta")[::2]] = "a/b"
    adata.obs["condition"] = labels
    adata.write_h5ad(folder / "three.h5ad")
    options = (*FIT, "--target", "a/b", "--n-pcs", "3", "--potential", "gaussian")
    code, _, err = run("fit", folder / "three.h5ad", *options, "-o", folder / "out.h5ad")
    assert code == 0, err
    assert {"X_hycnn_ot_IFN-beta", "X_hycnn_ot_a_b"} <= set(read(folder / "out.h5ad").obsm)


@pytest.mark.parametrize("suffix", [".h5ad", ".zarr"])
def test_info(folder, run, suffix):
    run("fit", folder / "in.h5ad", *FAST, "-o", folder / f"out{suffix}")
    code, out, err = run("info", folder / f"out{suffix}", "--json")
    assert (code, err) == (0, "")
    content = json.loads(out)
    assert content["source"] == "control"
    assert content["rep"]["name"] == "X_pca"
    assert content["params"]["hidden"] == [6, 6]
    assert {"status", "validation", "certificate"} == set(content["targets"]["IFN-beta"])
    code, out, _ = run("info", folder / f"out{suffix}")
    assert code == 0
    assert "source: control\n" in out
    assert "    validation\n" in out
    assert "      J_gaussian: " in out


def test_the_fit_is_announced(folder, run):
    options = (*FIT, "--n-pcs", "3", "--potential", "gaussian", "-o", folder / "o.h5ad")
    code, out, _ = run("fit", folder / "in.h5ad", *options)
    assert (code, out) == (0, "")


ERRORS = {
    "label": (
        ["fit", "in.h5ad", "--source", "ctrl", "--target", "IFN-beta", "-o", "o.h5ad"],
        "source_key='ctrl' is not a",
    ),
    "no input": (["fit", "nix.h5ad", *FIT, "-o", "o.h5ad"], "There is no file 'nix.h5ad'"),
    "input format": (["fit", "in.csv", *FIT, "-o", "o.h5ad"], "'in.csv' must end in .h5ad or .zarr"),
    "damaged input": (["fit", "bad.h5ad", *FIT, "-o", "o.h5ad"], "'bad.h5ad' cannot be read as AnnData"),
    "damaged store": (["fit", "bad.zarr", *FIT, "-o", "o.h5ad"], "'bad.zarr' cannot be read as AnnData"),
    "output format": (["fit", "in.h5ad", *FIT, "-o", "o.loom"], "'o.loom' must end in .h5ad or .zarr"),
    "output folder": (["fit", "in.h5ad", *FIT, "-o", "nix/o.h5ad"], "The folder of 'nix/o.h5ad' does not exist"),
    "input as output": (["fit", "in.h5ad", *FIT, "-o", "in.h5ad"], "'in.h5ad' exists; .* --overwrite"),
    "existing output": (["transport", "in.h5ad", "-o", "in.zarr"], "'in.zarr' exists; .* --overwrite"),
    "hidden": (["fit", "in.h5ad", *FIT, "-o", "o.h5ad", "--hidden", "8x8"], "--hidden '8x8' must be whole numbers"),
    "no fit": (["transport", "in.h5ad", "-o", "o.h5ad"], "has no fits. Run sh.tl.hycnn_ot first"),
    "no fit to describe": (["info", "in.h5ad"], "has no fits"),
    "no model": (["transport", "in.h5ad", "--model", "m.safetensors", "-o", "o.h5ad"], "m.safetensors"),
}


@pytest.mark.parametrize("case", ERRORS)
def test_errors_are_one_line_and_write_nothing(folder, run, monkeypatch, case):
    arguments, message = ERRORS[case]
    monkeypatch.chdir(folder)
    (folder / "bad.h5ad").write_bytes(b"nothing")
    (folder / "bad.zarr").mkdir()
    before = digest(folder)
    code, out, err = run(*arguments)
    assert code == 2
    assert out == ""
    assert err.count("\n") == 1
    assert err.startswith("error: ")
    assert re.search(message, err)
    assert digest(folder) == before


def digest(folder: Path) -> dict[str, str]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_a_small_target_is_named(folder, run):
    adata = read(folder / "in.h5ad")
    labels = adata.obs["condition"].astype(str)
    labels.iloc[np.flatnonzero(labels == "IFN-beta")[:3]] = "rare"
    adata.obs["condition"] = labels
    adata.write_h5ad(folder / "rare.h5ad")
    options = (*FIT, "--target", "rare", "--n-pcs", "3", "--potential", "gaussian", "-o", folder / "o.h5ad")
    code, _, err = run("fit", folder / "rare.h5ad", *options)
    assert code == 2
    assert "'rare' of adata.obs['condition'] has 3 cells" in err.splitlines()[-1]


@pytest.mark.parametrize("suffix", [".h5ad", ".zarr"])
def test_overwrite_replaces_the_whole_output(folder, run, suffix):
    path = folder / f"in{suffix}"
    code, _, err = run("fit", path, *FAST, "-o", path, "--overwrite")
    assert code == 0, err
    assert "hycnn_ot" in read(path).uns
    assert sorted(p.name for p in folder.iterdir()) == ["in.h5ad", "in.zarr"]


@pytest.mark.parametrize("suffix", [".h5ad", ".zarr"])
def test_a_failing_write_leaves_the_old_file(folder, run, monkeypatch, suffix):
    def fail(self, path, *_, **__):
        Path(path).mkdir() if suffix == ".zarr" else Path(path).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    path = folder / f"in{suffix}"
    before = digest(folder)
    monkeypatch.setattr(anndata.AnnData, f"write_{suffix[1:]}", fail)
    code, _, err = run("fit", path, *FAST, "-o", path, "--overwrite")
    assert code == 2
    assert "error: [Errno 28] No space left on device" in err
    assert digest(folder) == before


def test_wrong_usage(run):
    code, _, err = run("fit", "in.h5ad", "--source", "control")
    assert code == 2
    assert "--target" in err


def test_without_typer(monkeypatch):
    monkeypatch.setattr(cli, "typer", None)
    with pytest.raises(SystemExit, match=r"pip install 'scot-hycnn\[cli\]'"):
        cli.main()


@pytest.mark.parametrize(("command", "tool"), [(cli.fit, sh.tl.hycnn_ot), (cli.transport, sh.tl.transport)])
def test_every_keyword_has_a_flag_with_its_default(command, tool):
    flags, keywords = (inspect.signature(f).parameters for f in (command, tool))
    renamed = {"source_key": "source", "target_key": "target", "rng": "seed"}
    special = {"adata", "copy", "source_key", "target_key", "client", "output"}
    for name, keyword in keywords.items():
        if name not in special:
            assert flags[renamed.get(name, name)].default == keyword.default, name


def test_runs_as_a_module(folder):
    command = [sys.executable, "-m", "scot_hycnn.cli", "info", str(folder / "in.h5ad")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr == "error: adata.uns has no fit 'hycnn_ot'; it has no fits. Run sh.tl.hycnn_ot first.\n"
