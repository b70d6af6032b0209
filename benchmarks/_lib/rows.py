"""The rows of a benchmark are measured one by one, kept in a CSV file, and printed as a table."""

from __future__ import annotations

import os
import platform
import resource
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from importlib.metadata import version
from pathlib import Path

import pandas as pd
import torch
from tqdm import tqdm

RESULTS = Path(__file__).parents[1] / "results"


def machine() -> dict[str, str]:
    """Return what the measurements depend on beside the code."""
    processor = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [line.split(":")[1].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line]
        processor = names[0] if names else processor
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    return {
        "processor": f"{processor}, {os.cpu_count()} cores",
        "threads": str(torch.get_num_threads()),
        "device": device,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "scot-hycnn": version("scot-hycnn"),
        "ott-jax": version("ott-jax") if "ott" in sys.modules else "",
        "jax": version("jax") if "jax" in sys.modules else "",
    }


def peak_memory() -> float:
    """Return the peak memory of this process so far, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def processor_seconds() -> float:
    """Return the seconds that the cores have worked for this process so far."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def run(
    name: str,
    cases: Iterable[Mapping[str, object]],
    measure: Callable[..., Mapping[str, object]],
    *,
    fresh: bool = False,
) -> pd.DataFrame:
    """Measure each case that results/<name>.csv does not hold yet, and write each row as soon as it is measured.

    Parameters
    ----------
    name
        Name of the CSV.
    cases
        Keyword arguments of ``measure``; they identify a row.
    measure
        Returns the measured columns of a case.
    fresh
        Measure these cases again. Rows of other cases stay.

    Returns
    -------
    All rows of the given cases.
    """
    path = RESULTS / f"{name}.csv"
    cases = [{key: str(value) for key, value in case.items()} | {"_": case} for case in cases]
    if fresh and path.exists():
        of_cases = [{key: value for key, value in case.items() if key != "_"} for case in cases]
        others = [row for row in _rows(path) if not any(case.items() <= row.items() for case in of_cases)]
        path.unlink()
        if others:
            pd.DataFrame(others).to_csv(path, index=False)
    wanted = []
    for case in tqdm(cases, desc=name, disable=None):
        arguments = case.pop("_")
        done = next((row for row in _rows(path) if all(row.get(key) == value for key, value in case.items())), None)
        if done is None:
            started = time.perf_counter()
            measured = dict(measure(**arguments))  # type: ignore[arg-type]
            measured.setdefault("seconds", round(time.perf_counter() - started, 2))
            done = case | {key: _short(value) for key, value in measured.items()} | machine()
            path.parent.mkdir(exist_ok=True)
            # The file is read again because another run may have added rows meanwhile.
            pd.DataFrame([*_rows(path), done]).to_csv(path, index=False)
        wanted.append(done)
    return pd.DataFrame(wanted).apply(_numeric)


def show(table: pd.DataFrame) -> None:
    """Print a table, with the machine under it."""
    print(table.to_string(index=False, float_format=lambda value: f"{value:.4g}"))
    print(" | ".join(f"{key} {value}" for key, value in machine().items() if value))


def wide(table: pd.DataFrame, rows: list[str], column: str = "error") -> pd.DataFrame:
    """Mean and standard deviation over seeds, one row a task and one column a method.

    Parameters
    ----------
    table
        Rows of a benchmark, with columns method and ``column``.
    rows
        Columns that make a task.
    column
        What is averaged.

    Returns
    -------
    Text: 'mean ± sd', or the mean alone where there is one seed.
    """

    def text(values: pd.Series) -> str:
        return f"{values.mean():.4g}" + (f" ± {values.std():.2g}" if len(values) > 1 else "")

    return table.pivot_table(index=rows, columns="method", values=column, aggfunc=text, sort=False)


def _rows(path: Path) -> list[dict[str, object]]:
    return pd.read_csv(path, dtype=str, keep_default_na=False).to_dict("records") if path.exists() else []


def _short(value: object) -> str:
    return f"{value:.5g}" if isinstance(value, float) else str(value)


def _numeric(column: pd.Series) -> pd.Series:
    converted = pd.to_numeric(column, errors="coerce")
    return column if converted.isna().any() else converted
