"""The command line does what tl and pl do, and reports what is wrong in one line."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import warnings
from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import anndata
import matplotlib.pyplot as plt
import numpy as np
import pytest
import scanpy as sc

import scot_hycnn as sh
from scot_hycnn import cli
from scot_hycnn.cli import _main
from scot_hycnn.cli._commands import COMMANDS, FIGURES
from scot_hycnn.cli._options import flag_of, options_of
from scot_hycnn.pl._plane import mean_field

pytestmark = [
    pytest.mark.filterwarnings("ignore:Writing zarr v2"),
    pytest.mark.filterwarnings("default:All cells are evaluated"),
    pytest.mark.filterwarnings("ignore:Left out, with fewer"),
]
FIT = ["--source", "control", "--target", "IFN-beta"]
GAUSSIAN = [*FIT, "--n-pcs", "3", "--potential", "gaussian"]
FAST = [*FIT, "--n-pcs", "4", "--max-steps", "8", "--hidden", "6,6", "--n-ensemble", "2", "--seed", "3"]
FAST_KEYWORDS = {"n_pcs": 4, "max_steps": 8, "hidden": (6, 6), "n_ensemble": 2, "rng": 3}


@pytest.fixture(scope="session")
def files(tmp_path_factory):
    path = tmp_path_factory.mktemp("files")
    adata = sh.datasets.pbmc_planted(n_cells=120)[:, :20].copy()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Writing zarr v2")
        adata.write_h5ad(path / "in.h5ad")
        adata.write_zarr(path / "in.zarr")
        sh.tl.hycnn_ot(adata, "control", "IFN-beta", **FAST_KEYWORDS)
    adata.write_h5ad(path / "fitted.h5ad")
    return path


@pytest.fixture
def folder(files, tmp_path):
    shutil.copy(files / "in.h5ad", tmp_path)
    shutil.copytree(files / "in.zarr", tmp_path / "in.zarr")
    return tmp_path


@pytest.fixture
def fitted(files, folder):
    return Path(shutil.copy(files / "fitted.h5ad", folder))


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


def shell(*arguments, **environment):
    command = [sys.executable, "-m", "scot_hycnn.cli", *map(str, arguments)]
    variables = os.environ | environment
    return subprocess.run(command, capture_output=True, text=True, check=False, env=variables)


def read(path):
    return anndata.read_h5ad(path) if path.suffix == ".h5ad" else anndata.read_zarr(path)


@pytest.mark.parametrize(("source", "result"), [(".h5ad", ".zarr"), (".zarr", ".h5ad")])
def test_the_same_numbers_as_tl(folder, run, source, result):
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
    code, out, err = run("fit", folder / "three.h5ad", *GAUSSIAN, "--target", "a/b", "-o", folder / "out.h5ad")
    assert out == ""
    assert code == 0, err
    assert {"X_hycnn_ot_IFN-beta", "X_hycnn_ot_a_b"} <= set(read(folder / "out.h5ad").obsm)


def test_a_screen_and_a_condition_that_was_not_measured(folder, run):
    adata = sh.datasets.screen_planted(6, 20)
    adata.write_h5ad(folder / "screen.h5ad")
    keys = ("--covariate-keys", "dose", "--covariate-keys", "hours")
    options = ("--source", "control", "--groupby", "condition", *keys, "--n-pcs", "5", "--potential", "gaussian")
    code, _, err = run("screen", folder / "screen.h5ad", *options, "-o", folder / "fitted.h5ad")
    assert code == 0, err
    same = {"groupby": "condition", "covariate_keys": ["dose", "hours"], "n_pcs": 5, "potential": "gaussian"}
    sh.tl.hycnn_screen(adata, "control", **same)
    unseen = ("--key", "hycnn_screen", "--covariates", "dose=3, hours=24")
    code, _, err = run("transport", folder / "fitted.h5ad", *unseen, "-o", folder / "out.h5ad")
    assert code == 0, err
    sh.tl.transport(adata, "hycnn_screen", covariates={"dose": 3, "hours": 24})
    out = read(folder / "out.h5ad")
    for slot in ("X_hycnn_screen_drug_A_1_uM_6_h", "X_hycnn_screen_dose_3_hours_24"):
        np.testing.assert_allclose(out.obsm[slot], adata.obsm[slot], atol=1e-5)
    for wrong in ("dose", "dose=", "=3"):
        code, _, err = run("transport", folder / "fitted.h5ad", *unseen[:3], wrong, "-o", folder / "no.h5ad")
        assert code == 2
        assert wrong in err
    for figure in ("screen", "similarity"):
        flags = ("--shown", "all") if figure == "similarity" else ()
        code, _, err = run("plot", figure, folder / "fitted.h5ad", *flags, "-o", folder / f"{figure}.png")
        assert code == 0, err
    plt.close("all")


def test_info(fitted, run):
    code, out, err = run("info", fitted, "--json")
    assert (code, err) == (0, "")
    content = json.loads(out)
    assert content["source"] == "control"
    assert content["rep"]["name"] == "X_pca"
    assert content["params"]["hidden"] == [6, 6]
    assert {"outcome", "status", "validation", "certificate"} == set(content["targets"]["IFN-beta"])
    code, out, _ = run("info", fitted)
    assert code == 0
    assert "source: control\n" in out
    assert "    validation\n" in out
    assert "      J_gaussian: " in out


TOML = {
    "bad": "source = ",
    "key": "nix = 1",
    "table": "[fitt]\nsource = 'control'",
    "type": "[fit]\nmax_steps = 600.5",
    "switch": "json = 'x'",
}
FIT_OF = ["fit", "in.h5ad", *FIT, "-o"]
# Arguments and the values that the message has to name.
ERRORS = {
    "label": (["fit", "in.h5ad", "--source", "ctrl", "--target", "IFN-beta", "-o", "o.h5ad"], "'ctrl'"),
    "no input": (["fit", "nix.h5ad", *FIT, "-o", "o.h5ad"], "'nix.h5ad'"),
    "input format": (["fit", "in.csv", *FIT, "-o", "o.h5ad"], r"'in.csv' .*\.h5ad or \.zarr"),
    "damaged input": (["fit", "bad.h5ad", *FIT, "-o", "o.h5ad"], "'bad.h5ad'"),
    "damaged store": (["fit", "bad.zarr", *FIT, "-o", "o.h5ad"], "'bad.zarr'"),
    "output format": ([*FIT_OF, "o.loom"], r"'o.loom' .*\.h5ad or \.zarr"),
    "output folder": ([*FIT_OF, "nix/o.h5ad"], "'nix/o.h5ad'"),
    "input as output": ([*FIT_OF, "in.h5ad"], "'in.h5ad' .*--overwrite"),
    "existing output": (["transport", "in.h5ad", "-o", "in.zarr"], "'in.zarr' .*--overwrite"),
    "widths": ([*FIT_OF, "o.h5ad", "--hidden", "8x8"], "--hidden.*'8x8'"),
    "option of training": ([*FIT_OF, "o.h5ad", "--solver", "nix"], "nix"),
    "no fit": (["transport", "in.h5ad", "-o", "o.h5ad"], "no fits"),
    "no fit to describe": (["info", "in.h5ad"], "no fits"),
    "no input to evaluate": (["evaluate", "nix.zarr"], "'nix.zarr'"),
    "two formats": (["evaluate", "in.h5ad", "--json", "--csv"], "--json and --csv"),
    "scores into the input": (["evaluate", "in.h5ad", "-o", "in.zarr"], "'in.zarr' .*--overwrite"),
    "figure": (["plot", "umap", "in.h5ad", "-o", "o.png"], "'umap'.*'transport'"),
    "figure's format": (["plot", "history", "in.h5ad", "-o", "o.gif"], r"'o.gif' .*\.png, \.svg or \.pdf"),
    "figure's option": (
        ["plot", "history", "in.h5ad", "-o", "o.png", "--basis", "umap", "--name", "a"],
        r"'history' .*\['--basis', '--name'\].*'--target'",
    ),
    "no fit to draw": (["plot", "deg", "in.h5ad", "-o", "o.png"], "no fits"),
    "report's format": (["report", "in.h5ad", "-o", "o.pdf"], r"'o.pdf' .*\.html"),
    "existing report": (["report", "in.h5ad", "-o", "old.html"], "'old.html' .*--overwrite"),
    "option": (["info", "in.h5ad", "--nix"], "--nix.*scot-hycnn info --help"),
    "command": (["nix"], "'nix'.*scot-hycnn --help"),
    "number": ([*FIT_OF, "o.h5ad", "--max-steps", "x"], "--max-steps"),
    "missing option": (["fit", "in.h5ad", "--source", "control"], "--target"),
    "no config": (["info", "in.h5ad", "--config", "nix.toml"], "'nix.toml'"),
    "no TOML": (["info", "in.h5ad", "--config", "bad.toml"], "'bad.toml'"),
    "unknown key": (["info", "in.h5ad", "--config", "key.toml"], r"'key.toml' .*'nix'.*\['file', 'key', 'json'\]"),
    "unknown table": (["info", "in.h5ad", "--config", "table.toml"], "'table.toml' .*'fitt'.*'fit', 'transport'"),
    "fraction for an integer": ([*FIT_OF, "o.h5ad", "--config", "type.toml"], "--max-steps"),
    "text for a switch": (["info", "in.h5ad", "--config", "switch.toml"], "--json"),
    "no model": (["transport", "in.h5ad", "--model", "m.safetensors", "-o", "o.h5ad"], "m.safetensors"),
}


def test_errors_are_one_line_and_write_nothing(folder, run, monkeypatch):
    monkeypatch.chdir(folder)
    (folder / "bad.h5ad").write_bytes(b"nothing")
    (folder / "bad.zarr").mkdir()
    (folder / "old.html").write_bytes(b"old")
    for name, text in TOML.items():
        (folder / f"{name}.toml").write_text(text)
    before = digest(folder)
    for case, (arguments, message) in ERRORS.items():
        code, out, err = run(*arguments)
        assert (code, out, err.count("\n")) == (2, "", 1), (case, err)
        assert re.match(f"error: .*{message}", err), (case, err)
        assert digest(folder) == before, case


def digest(folder: Path) -> dict[str, str]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.mark.parametrize("suffix", [".h5ad", ".zarr"])
def test_overwrite_replaces_the_whole_output(folder, run, suffix):
    path = folder / f"in{suffix}"
    code, _, err = run("split", path, "--stratify", "condition", "-o", path, "--overwrite")
    assert code == 0, err
    assert "split" in read(path).obs
    assert sorted(p.name for p in folder.iterdir()) == ["in.h5ad", "in.zarr"]


@pytest.mark.parametrize("suffix", [".h5ad", ".zarr"])
def test_a_failing_write_leaves_the_old_file(folder, run, monkeypatch, suffix):
    def fail(self, path, *_, **__):
        if suffix == ".h5ad":  # a group of the store exists already
            Path(path).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    path = folder / f"in{suffix}"
    before = digest(folder)
    owner, name = (anndata.io, "write_elem") if suffix == ".zarr" else (anndata.AnnData, "write_h5ad")
    monkeypatch.setattr(owner, name, fail)
    code, _, err = run("fit", path, *GAUSSIAN, "-o", path, "--overwrite")
    assert code == 2
    assert "error: [Errno 28] No space left on device" in err
    assert digest(folder) == before


def test_without_typer(monkeypatch):
    monkeypatch.setattr(_main, "typer", None)
    with pytest.raises(SystemExit, match=r"pip install 'scot-hycnn\[cli\]'"):
        cli.main()


@pytest.mark.filterwarnings("default:.*X_umap")
def test_a_warning_is_one_line(folder, run):
    adata = read(folder / "in.h5ad")
    adata.obsm["X_umap"] = adata.obsm["X_pca"][:, :2]
    adata.write_h5ad(folder / "umap.h5ad")
    options = (*FIT, "--use-rep", "X_umap", "--potential", "gaussian", "-o", folder / "o.h5ad")
    code, _, err = run("fit", folder / "umap.h5ad", *options)
    assert code == 0
    assert len(re.findall("^warning: .*X_umap", err, flags=re.MULTILINE)) == 1


def test_options_are_those_of_the_function(run):
    for command, tool in {"fit": "tl.hycnn_ot", "transport": "tl.transport", "report": "pl.report"}.items():
        _, shown, _ = run(command, "--help")
        for name, option in options_of(tool).items():
            assert flag_of(name) in shown, name
            assert option.annotation.__metadata__[0].help, name  # every option is explained


def test_the_help_of_plot_says_which_figure_takes_an_option_and_what_it_means_there(run, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    text = " ".join(run("plot", "--help")[1].split())
    of_option = dict(
        re.findall(
            r" --([a-z-]+)(?:, --[a-z-]+)? (?:<[^>]*>|/ --no-[a-z-]+) (.*?)"
            r"(?= --[a-z-]+(?:, --[a-z-]+)? <| --[a-z-]+ / --no-| -o, )",
            text,
        )
    )
    for figure in FIGURES:
        for name, option in options_of(f"pl.{figure}", optional=True).items():
            shown, meaning = of_option[flag_of(name)[2:]], option.annotation.__metadata__[0].help
            if shown == meaning:  # it is the same for all figures
                continue
            (figures,) = [
                part.split(": ")[0] for part in shown.split("For ")[1:] if part.partition(": ")[2].strip() == meaning
            ]
            assert figure in figures.split(", ")
    assert "embedding" not in of_option["n-genes"]


def test_the_help_speaks_of_flags(run):
    text = "".join(run(command, "--help")[1] for command in ("report", "fit", "plot"))
    assert "--target" in text
    assert not re.search("n_genes|mask_obs|a boolean array|a generator", text)


def test_a_mask_is_a_column(folder, run):
    adata = read(folder / "in.h5ad")
    adata.obs["mask"] = np.arange(adata.n_obs) % 3 > 0
    adata.write_h5ad(folder / "mask.h5ad")
    code, _, err = run("fit", folder / "mask.h5ad", *GAUSSIAN, "--mask-obs", "mask", "-o", folder / "o.h5ad")
    assert code == 0, err
    sh.tl.hycnn_ot(adata, "control", "IFN-beta", n_pcs=3, potential="gaussian", mask_obs="mask")
    np.testing.assert_array_equal(read(folder / "o.h5ad").obsm["X_hycnn_ot"], adata.obsm["X_hycnn_ot"])


def test_options_of_a_typed_dict(tmp_path, monkeypatch):
    """Options that a TypedDict adds to a signature, its base classes in other files included."""
    (tmp_path / "tl").mkdir()
    (tmp_path / "solver").mkdir()
    (tmp_path / "tl" / "__init__.py").write_text("from ._fit import fit")
    (tmp_path / "tl" / "_fit.py").write_text(
        "from ..solver import Training\n"
        "class Options(Training, total=False):\n    skip: bool\n"
        "def fit(adata: AnnData, source_key: str, *, n: int | None = None, t: float = 1, **more: Unpack[Options]):\n"
        '    """Fit.\n\n    Parameters\n    ----------\n    n, t\n        Number. None takes all of ``obs``.\n\n'
        "    Returns\n    -------\n    None.\n\n"
        '    Other Parameters\n    ----------------\n    skip\n        Skip. Not shown.\n    """\n'
    )
    (tmp_path / "solver" / "__init__.py").write_text(
        'class Training(TypedDict, total=False):\n    hidden: Annotated[Sequence[int] | None, "Widths."]\n'
        "    n: str\n    labels: Sequence[str] | str | None\n"
    )
    monkeypatch.setattr("scot_hycnn.cli._options.ROOT", tmp_path)
    options = options_of("tl.fit")
    assert list(options) == ["source_key", "n", "t", "hidden", "labels", "skip"]
    helps = {name: option.annotation.__metadata__[0].help for name, option in options.items()}
    assert helps["n"] == "Number. The default takes all of obs."
    assert (helps["t"], helps["hidden"], helps["skip"]) == ("Number.", "Widths.", "Skip.")
    types = {name: option.annotation.__origin__ for name, option in options.items()}
    assert types == {
        "source_key": str,
        "n": int | None,
        "t": float,
        "hidden": str | None,
        "labels": list[str] | None,
        "skip": bool | None,
    }
    assert options["source_key"].default is options["source_key"].empty
    assert options["t"].default == 1


def test_runs_as_a_module(tmp_path):
    done = shell("fit", "--config", tmp_path / "none.toml")
    assert done.returncode == 2
    assert re.fullmatch("error: .*none.toml.*\n", done.stderr)


def test_deg_prints_the_table_of_get(fitted, run):
    code, out, err = run("deg", fitted, "--groupby", "cell_type", "--min-fraction", "0.2")
    assert code == 0, err
    expected = sh.get.deg(read(fitted), groupby="cell_type", min_fraction=0.2)
    rows = list(csv.DictReader(io.StringIO(out)))
    assert [row["gene"] for row in rows] == expected["gene"].tolist()
    assert [float(row["predicted_change"]) for row in rows] == pytest.approx(expected["predicted_change"].tolist())


def test_evaluate_prints_what_tl_stores(fitted, run):
    options = ("--n-bootstrap", "4", "--groupby", "cell_type", "--seed", "5")
    code, out, err = run("evaluate", fitted, *options, "--json", "-o", fitted.with_name("scored.h5ad"))
    assert code == 0, err
    assert "WARNING" not in out
    adata = read(fitted)
    sh.tl.evaluate(adata, n_bootstrap=4, groupby="cell_type", rng=5)
    expected = sh.get.evaluation(adata)
    sh_scores = sh.get.evaluation(read(fitted.with_name("scored.h5ad")))
    np.testing.assert_array_equal(sh_scores["value"], expected["value"])
    records = json.loads(out)
    assert [record["metric"] for record in records] == expected["metric"].tolist()
    assert [record["value"] for record in records] == [None if np.isnan(v) else v for v in expected["value"]]

    _, out, _ = run("evaluate", fitted, *options, "--csv")
    rows = list(csv.DictReader(io.StringIO(out)))
    assert [float(row["value"] or "nan") for row in rows] == pytest.approx(expected["value"].tolist(), nan_ok=True)

    _, out, _ = run("evaluate", fitted, *options)
    # The verdict comes first, and then the row of all cells that counts.
    assert re.match(r"IFN-beta: \w.*\n\nIFN-beta, all, same composition: \d+ source and \d+ target", out)
    # Groups stand below each other, with their numbers of cells.
    _, _, groups = out.partition("energy_distance of each group")
    shown = [re.split(r" {2,}", line.strip())[0] for line in groups.partition("\n\n")[0].splitlines()[2:]]
    assert shown == list(dict.fromkeys(expected["group"]))
    assert re.search(r"^all +60 +60 ", groups, flags=re.MULTILINE)
    assert re.search(
        r"^ +identity +mean_shift +(gaussian +hycnn_ot|hycnn_ot = gaussian) +replicate +ceiling$",
        out,
        flags=re.MULTILINE,
    )
    assert re.search(r"^pearson_delta +- +-?0\.\d+", out, flags=re.MULTILINE)


def test_evaluate_scores_predictions_of_others(fitted, run):
    """Layers, keys of obsm and files, beside the fit and without one."""
    adata = read(fitted)
    adata.obsm["mine"] = adata.obsm["X_pca"] + 1
    del adata.uns["hycnn_ot"]
    cells, other = fitted.with_name("cells.h5ad"), fitted.with_name("other.h5ad")
    adata.write_h5ad(cells)
    adata[adata.obs["condition"] == "control"].copy().write_h5ad(other)
    options = ("--source", "control", "--target", "IFN-beta", "--n-bootstrap", "0")
    code, out, err = run("evaluate", cells, "--predictions", "mine", "--predictions", other, *options, "--csv")
    assert code == 0, err
    scores = {(row["method"], row["metric"], row["group"]): row["value"] for row in csv.DictReader(io.StringIO(out))}
    for metric in ("energy_distance", "r2_mean"):
        assert float(scores["other", metric, "all"]) == pytest.approx(
            float(scores["identity", metric, "all"]), rel=1e-5
        )
        assert scores["mine", metric, "all"] != scores["identity", metric, "all"]
    code, out, err = run("evaluate", cells, "--predictions", "mine", *options)
    assert code == 0, err
    assert re.search(r"^ +identity +mean_shift +gaussian +mine +replicate +ceiling$", out, flags=re.MULTILINE)
    code, _, err = run("evaluate", cells, "--predictions", "mine")
    assert code != 0
    assert "source=" in err or "--source" in err
    code, out, err = run("evaluate", fitted, "--predictions", other, "--n-bootstrap", "0", "--csv")
    assert code == 0, err
    assert {"other", "hycnn_ot"} <= {row["method"] for row in csv.DictReader(io.StringIO(out))}


def test_info_prints_the_scores(fitted, run):
    """Those of tl.evaluate, once there are some."""
    _, out, _ = run("info", fitted)
    assert "pearson_delta" not in out
    assert json.loads(run("info", fitted, "--json")[1])["scores"] == []
    scored = fitted.with_name("scored.h5ad")
    _, table, _ = run("evaluate", fitted, "--n-bootstrap", "4", "--groupby", "cell_type", "-o", scored)
    code, out, _ = run("info", scored)
    assert code == 0
    assert table.strip() in out
    scores = json.loads(run("info", scored, "--json")[1])["scores"]
    assert [row["group"] for row in scores] == sh.get.evaluation(read(scored))["group"].tolist()


@pytest.mark.filterwarnings("default:Replacing")
def test_a_pipeline_from_split_to_genes(folder, run):
    """The same as in Python, under the names of the functions."""
    steps = [
        ("split", "--stratify", "condition", "--seed", "1"),
        ("pca", "--n-comps", "4", "--split-key", "split"),
        ("fit", *FIT, "--potential", "gaussian", "--split-key", "split"),
        ("decode", "--clip"),
    ]
    before = folder / "in.h5ad"
    for name, *options in steps:
        after = folder / f"{name}.h5ad"
        code, out, err = run(name, before, *options, "-o", after)
        assert (code, out) == (0, ""), err
        before = after
    adata = read(folder / "in.h5ad")
    sh.pp.split(adata, stratify="condition", rng=1)
    sh.pp.pca(adata, 4, split_key="split")
    sh.tl.hycnn_ot(adata, "control", "IFN-beta", potential="gaussian", split_key="split")
    sh.tl.decode(adata, clip=True)
    found = read(before)
    assert found.obs["split"].tolist() == adata.obs["split"].tolist()
    np.testing.assert_array_equal(found.layers["hycnn_ot"], adata.layers["hycnn_ot"])


def test_the_version_is_printed(run):
    code, out, _ = run("--version")
    assert code == 0
    assert out.split() == ["scot-hycnn", version("scot-hycnn")]


@pytest.mark.parametrize("in_config", [False, True])
def test_names_of_python_are_flags_too(folder, run, in_config):
    options = {"source-key": "control", "target-key": "IFN-beta", "rng": 3, "potential": "gaussian"}
    flags = [part for name, value in options.items() for part in (f"--{name}", value)]
    if in_config:
        lines = [f"{name} = {value!r}" for name, value in options.items()]
        (folder / "c.toml").write_text("\n".join(lines), encoding="utf-8")
        flags = ["--config", folder / "c.toml"]
    code, _, err = run("fit", folder / "in.h5ad", *flags, "-o", folder / "o.h5ad")
    assert code == 0, err
    assert read(folder / "o.h5ad").uns["hycnn_ot"]["params"]["rng"] == 3


@pytest.mark.parametrize(
    ("command", "flags", "names"),
    [
        (["fit", "--source", "ctrl", "--target", "IFN-beta"], ["--source 'ctrl'"], ["source_key"]),
        (["fit", *FIT, "--leave-out", "groups"], ["--leave-out", "--group-key"], ["leave_out", "group_key"]),
        (["fit", *FIT, "--n-pcs", "900"], ["--n-pcs 900"], ["n_pcs"]),
        (["fit", *FIT, "--split-key", "s"], ["--split-key", "scot-hycnn split"], ["split_key", "sh.pp"]),
        (["fit", *FIT, "--fallback", "--solver", "paper"], ["--fallback ", "--solver"], ["fallback=", "solver="]),
        (["transport", "--key", "other"], ["scot-hycnn fit"], ["sh.tl"]),
        (["split", "--holdout", "a"], ["--holdout", "--groupby"], ["holdout="]),
    ],
)
def test_errors_speak_of_flags(folder, run, command, flags, names):
    name, *options = command
    code, _, err = run(name, folder / "in.h5ad", *options, "-o", folder / "o.h5ad")
    assert code == 2
    assert all(flag in err for flag in flags), err
    assert not any(python in err for python in names), err


def test_names_from_the_file_are_left_as_they_are(folder, run):
    adata = read(folder / "in.h5ad")
    adata.obs["group_key"] = ["split_key", "use_rep"] * 60
    adata.write_h5ad(folder / "named.h5ad")
    _, _, err = run("fit", folder / "named.h5ad", *FIT, "--groupby", "group_key", "-o", folder / "o.h5ad")
    assert "adata.obs['group_key']" in err
    assert "['split_key', 'use_rep']" in err


@pytest.mark.filterwarnings("default:Replacing")
def test_warnings_and_the_log_speak_of_flags(fitted, run):
    code, _, err = run("fit", fitted, *GAUSSIAN, "-o", fitted.with_name("again.h5ad"))
    assert code == 0
    assert "--key-added" in err
    _, _, err = run("evaluate", fitted, "--n-bootstrap", "0")
    assert "scot-hycnn fit --split-key" in err
    assert "sh.tl" not in err


def test_all_figures_are_offered():
    assert set(FIGURES) == {name for name in sh.pl.__all__ if name != "report"}


GENE = "TNFRSF4"
# Options of each figure.
PICTURES = {
    "deg": ["--n-genes", "5"],
    "displacement": ["--groupby", "cell_type"],
    "embedding": ["--color", "cell_type"],
    "evaluation": ["--metric", "energy_distance", "--metric", "trace_ratio", "--n-cols", "1"],
    "growth": ["--groupby", "cell_type", "--key", "weighted"],
    "history": [],
    "marginals": ["--name", "PC1", "--name", GENE],
    "mean-scatter": ["--n-labels", "2"],
    "transport": ["--basis", "pca", "--style", "streams"],
}
MAGIC = {".png": b"\x89PNG", ".svg": b"<?xml", ".pdf": b"%PDF"}


@pytest.mark.parametrize("figure", PICTURES)
def test_every_figure_is_drawn_into_a_file(folder, fitted, run, figure):
    if figure == "evaluation":
        run("evaluate", fitted, "--n-bootstrap", "2", "-o", fitted, "--overwrite")
    if figure == "growth":
        options = ("--potential", "gaussian", "--unbalanced", "0.3", "--key-added", "weighted")
        code, _, err = run(
            "fit", fitted, "--source", "control", "--target", "IFN-beta", *options, "-o", fitted, "--overwrite"
        )
        assert code == 0, err
    suffix = {"history": ".pdf", "transport": ".svg"}.get(figure, ".png")
    code, out, err = run("plot", figure, fitted, *PICTURES[figure], "-o", folder / f"a{suffix}")
    assert (code, out) == (0, ""), err
    assert (folder / f"a{suffix}").read_bytes().startswith(MAGIC[suffix])
    if figure in ("history", "deg"):  # the same file gives the same picture, without a date
        run("plot", figure, fitted, *PICTURES[figure], "-o", folder / f"b{suffix}")
        assert (folder / f"a{suffix}").read_bytes() == (folder / f"b{suffix}").read_bytes()
    plt.close("all")  # a process of its own would end here


def test_report_is_that_of_pl(folder, fitted, run):
    options = ("--groupby", "cell_type", "--n-genes", "5", "--title", "Ours", "--target", "IFN-beta")
    code, out, err = run("report", fitted, *options, "-o", folder / "a.html")
    assert (code, out) == (0, ""), err
    sh.pl.report(read(fitted), folder / "b.html", groupby="cell_type", n_genes=5, title="Ours")
    assert (folder / "a.html").read_text() == (folder / "b.html").read_text()


def test_options_from_a_file(folder, run):
    (folder / "run.toml").write_text(
        "[fit]\nsource = 'control'\ntarget = ['IFN-beta']\nn-pcs = 4\nmax_steps = 8\nhidden = [6, 6]\n"
        "n-ensemble = 2\nseed = 1\nvalidation-fraction = 0.2\n"
        f"file = {str(folder / 'in.h5ad')!r}\noutput = {str(folder / 'out.h5ad')!r}\n[info]\njson = true\n"
    )
    code, _, err = run("fit", "--config", folder / "run.toml", "--seed", "3")  # a flag overrides the file
    assert code == 0, err
    params = read(folder / "out.h5ad").uns["hycnn_ot"]["params"]
    assert params["rng"] == 3
    assert params["validation_fraction"] == 0.2
    assert params["hidden"].tolist() == [6, 6]
    code, out, _ = run("info", folder / "out.h5ad", "--config", folder / "run.toml")
    assert json.loads(out)["params"]["rng"] == 3
    # Keys outside of tables, and a single value for an option that can be repeated; an integer is a number.
    (folder / "flat.toml").write_text("source = 'control'\ntarget = 'IFN-beta'\npotential = 'gaussian'\nlr = 1\n")
    code, _, err = run("fit", folder / "in.h5ad", "-o", folder / "o.h5ad", "--config", folder / "flat.toml")
    assert code == 0, err


def test_help_loads_nothing_heavy():
    code = f"""
import sys
from scot_hycnn.cli import main
for command in {list(COMMANDS)}:
    sys.argv = ["scot-hycnn", command, "--help"]
    main()
    print({{"torch", "scanpy", "anndata", "matplotlib", "numpy", "pandas"}} & set(sys.modules), "END")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    for command, page in zip([*COMMANDS, ""], done.stdout.split("END\n"), strict=True):
        assert page == "" or ("--config" in page and page.endswith("set() ")), command


def test_the_shell_completes_commands_and_figures():
    done = shell(_SCOT_HYCNN_COMPLETE="complete_bash", COMP_WORDS="scot-hycnn ", COMP_CWORD="1")
    assert done.stdout.split() == list(COMMANDS)
    done = shell(_SCOT_HYCNN_COMPLETE="complete_bash", COMP_WORDS="scot-hycnn plot mea", COMP_CWORD="2")
    assert done.stdout.split() == ["mean_scatter"]


def test_without_a_command_there_is_help(run):
    code, out, _ = run()
    assert code == 0
    assert all(command in out for command in COMMANDS)
    assert "Exit codes" in out


def test_an_interrupted_command_ends_with_130(folder, run, monkeypatch):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(sh.tl, "hycnn_ot", interrupt)
    code, out, _ = run("fit", folder / "in.h5ad", *FIT, "-o", folder / "o.h5ad")
    assert (code, out) == (130, "")
    assert not (folder / "o.h5ad").exists()


def missing_key():
    return {}["theta"]


def singular_matrix():
    return np.linalg.cholesky(-np.eye(2))  # a LinAlgError is a ValueError


def unknown_keyword():
    return sh.tl.transport(nix=1)


def no_import():
    import_module("scot_hycnn.nix")


def missing_page():
    return (Path(sh.__file__).parent / "pl" / "nix.html").read_text()


def value_error_without_a_check():
    return mean_field(np.ones((2, 2)), np.ones((3, 2)), 4)  # numpy raises it within a function of the package


OURS = [missing_key, singular_matrix, unknown_keyword, no_import, missing_page, value_error_without_a_check]


@pytest.mark.parametrize("fault", OURS, ids=lambda fault: fault.__name__)
def test_an_error_of_the_package_is_shown_with_its_traceback(folder, run, monkeypatch, fault):
    monkeypatch.setattr(sh.tl, "hycnn_ot", lambda *_, **__: fault())
    code, out, err = run("fit", folder / "in.h5ad", *FIT, "-o", folder / "o.h5ad")
    assert (code, out) == (1, "")
    assert "Traceback (most recent call last)" in err
    assert fault.__name__ in err
    assert "please report it" in err.splitlines()[-1]
    assert not (folder / "o.h5ad").exists()


def out_of_memory():
    raise MemoryError


def full_disk():
    raise OSError(28, "No space left on device", "o.h5ad")


def warning_made_an_error():
    raise UserWarning("Replacing")


@pytest.mark.parametrize(
    ("refusal", "message"),
    [(out_of_memory, "MemoryError"), (full_disk, "No space left .*'o.h5ad'"), (warning_made_an_error, "Replacing")],
)
def test_an_error_of_the_machine_is_one_line(folder, run, monkeypatch, refusal, message):
    monkeypatch.setattr(sh.tl, "hycnn_ot", lambda *_, **__: refusal())
    code, out, err = run("fit", folder / "in.h5ad", *FIT, "-o", folder / "o.h5ad")
    assert (code, out) == (2, "")
    assert re.fullmatch(f"error: .*{message}.*\n", err)


WORKFLOWS = Path(__file__).parents[2] / "tutorials" / "workflows"


@pytest.mark.slow
@pytest.mark.skipif(find_spec("snakemake") is None, reason="snakemake is not installed: extra 'workflow'")
def test_the_snakemake_example(files, tmp_path):
    adata = read(files / "in.h5ad")
    sh.pp.split(adata, test_size=0.4)
    (tmp_path / "cells").mkdir()
    adata.write_h5ad(tmp_path / "cells" / "ours.h5ad")
    text = (WORKFLOWS / "run.toml").read_text(encoding="utf-8")
    text = text.replace("[fit]\n", "[fit]\npotential = 'gaussian'\nn-pcs = 4\n").replace(
        'group-key = "cell_type"\n', ""
    )
    (tmp_path / "run.toml").write_text(text, encoding="utf-8")
    snakefile = ["--snakefile", WORKFLOWS / "Snakefile", "--directory", tmp_path, "--config", "run=run.toml"]
    # The scot-hycnn of this environment, wherever the tests are run from.
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        [sys.executable, "-m", "snakemake", "--cores", "1", *map(str, snakefile)],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PATH": path, "XDG_CACHE_HOME": str(tmp_path / "cache")},
    )
    assert done.returncode == 0, done.stderr
    found = {path.name for path in (tmp_path / "results" / "ours").iterdir()}
    assert found == {"fitted.h5ad", "fit.log", "scored.h5ad", "scores.csv", "transport.png", "report.html"}


def test_the_workflows_options_are_known(files, tmp_path, run):
    for command in COMMANDS:
        code, _, err = run(command, "--config", WORKFLOWS / "run.toml")
        assert code == 2
        assert "Missing" in err, err  # and no unknown key
