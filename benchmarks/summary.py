"""Print the table of the README from the rows of the benchmarks, or write it there.

Each row of the table is one question of docs/benchmarks.md. A test compares the README with what this prints.

    python benchmarks/summary.py
    python benchmarks/summary.py --write
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pandas as pd

FOLDER = Path(__file__).parent
README = FOLDER.parent / "README.md"
BEGIN, END = "<!-- table of benchmarks/summary.py -->\n", "<!-- end of the table -->"
HEADER = """| % of the error | mean shift | Gaussian map | best other | **scot_hycnn** | replicate |
|---|---|---|---|---|---|
"""
RESPONSES = {
    "kang_ifnb": "Kang, IFN-β",
    "bodenmiller_bcr": "Bodenmiller, BCR/FcR-XL",
    "bodenmiller_pma": "Bodenmiller, PMA/ionomycin",
    "bodenmiller_vanadate": "Bodenmiller, vanadate",
}
PEERS = {"entropic": "entropic map", "ot-cfm": "OT-CFM", "ott-enot": "ENOT"}
# Published errors: of six methods for 4x³ in 50 dimensions (arXiv:2604.26942, app. D.3), and of all solvers on the W2
# benchmark in 16 dimensions, in % of the variance, with unlimited samples on a GPU (ENOT: Buzun et al. 2024).
PUBLISHED = 19.81, "HyCNN"
PUBLISHED_W2 = 0.24, "ENOT on a GPU"


def table() -> str:
    """Return the table as Markdown, in percent of the error of no change; folds, groups and seeds are averaged."""
    cells, unseen, planted = _rows("cells"), _rows("unseen"), _rows("planted")
    folds, peers = cells[cells["part"] == "folds"], cells[cells["part"] == "peers"]
    # The same folds for all methods.
    folds = folds[folds["held_out"].isin(peers["held_out"])]
    lines = []
    for response, name in RESPONSES.items():
        means = folds[folds["response"] == response].groupby("method")["energy_distance"].mean()
        others = peers[peers["response"] == response].groupby(["method", "budget"])["energy_distance"].mean()
        rival = next(name for start, name in PEERS.items() if others.idxmin()[0].startswith(start))
        best = others.min(), rival
        lines.append([name, *means[["identity", "mean_shift", "gaussian"]], best, means["hycnn_ot"], means["floor"]])
    types = unseen[unseen["setting"] == "kang_ifnb"].groupby("method")["error"].mean()
    simple = types[["no change", "shift", "Gaussian map"]]
    lines.append(["Kang, cell types never treated", *simple, None, types["chosen"], None])
    truth = planted[planted["n_cells"] == 4000].groupby("method")["squared_error"].mean()
    lines.append(["planted PBMCs", *truth[["identity", "mean_shift", "gaussian"]], None, truth["hycnn_ot"], None])
    cubic = _rows("synthetic").query("task == 'cubic-50' and max_steps.isna()").groupby("method")["error"].mean()
    maps = cubic[["identity", "gaussian", "hycnn/amortized"]]
    lines.append(["T(x) = 4x³, 50 dimensions", maps.iloc[0], None, maps.iloc[1], PUBLISHED, maps.iloc[2], None])
    w2 = _rows("w2_benchmark").query("dim == 16 and n == 20000 and seed < 3 and max_steps.isna() and times == 1")
    maps = w2.groupby("method")["error"].mean()[["identity", "gaussian", "hycnn/amortized"]]
    lines.append(["W2 benchmark, 16 dimensions", maps.iloc[0], None, maps.iloc[1], PUBLISHED_W2, maps.iloc[2], None])
    return HEADER + "".join(
        f"| {name} | {' | '.join(_percent(value, no_change) for value in values)} |\n"
        for name, no_change, *values in lines
    )


def _rows(name: str) -> pd.DataFrame:
    return pd.read_csv(FOLDER / "results" / f"{name}.csv")


def _percent(value: float | tuple[float, str] | None, no_change: float) -> str:
    if isinstance(value, tuple):
        return f"{_percent(value[0], no_change)} ({value[1]})"
    if value is None or pd.isna(value):
        return ""
    percent = 100 * value / no_change
    # A minus sign, and no -0.0.
    text = f"{round(percent, 1) + 0:.1f}" if percent < 10 else f"{percent:.0f}"
    return text.replace("-", "\N{MINUS SIGN}")


def main() -> None:
    """Print the table, or write it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true", help="write it into the README")
    if parser.parse_args().write:
        text = README.read_text(encoding="utf-8")
        before, after = text.split(BEGIN)[0], text.split(END)[1]
        README.write_text(before + BEGIN + table() + END + after, encoding="utf-8")
    else:
        print(table())


if __name__ == "__main__":
    main()
