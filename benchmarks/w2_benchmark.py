"""Run the Wasserstein-2 benchmark Mix3toMix10 (Korotin et al. 2021) from at most 20,000 samples: L2-UVP, percent.

The samples are read from the folder that SCOT_HYCNN_DATA names.

    python benchmarks/w2_benchmark.py --dims 2 8 16 32 --threads 1
    python benchmarks/w2_benchmark.py --n 2000 5000 20000
    python benchmarks/w2_benchmark.py --dims 16 --potentials hycnn icnn --solvers amortized minimax w2gn enot
    python benchmarks/w2_benchmark.py --times 1 3                    # three times the steps: does it diverge?
    python benchmarks/w2_benchmark.py --dims 16 --peers entropic monge-gap ott-enot     # needs the extra 'bench'
    python benchmarks/w2_benchmark.py --quick
"""

from __future__ import annotations

import argparse

import torch
from _lib.known_maps import w2_benchmark
from _lib.methods import BASELINES, PEERS, check_peers, error_after, ours
from _lib.rows import run, show, wide

from scot_hycnn import metrics


def measure(*, dim: int, n: int, method: str, seed: int, **options: float | None) -> dict[str, object]:
    """Fit one dimension by one method and return its error."""
    return error_after(method, w2_benchmark(dim, n), metrics.l2_uvp, rng=seed, **options)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dims", nargs="*", type=int, default=[2, 8, 16, 32])
    parser.add_argument("--n", nargs="*", type=int, default=[20_000])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--potentials", nargs="*", default=["hycnn"], help="families, as solver.fit names them")
    parser.add_argument("--solvers", nargs="*", default=["amortized"], help="training methods")
    parser.add_argument("--peers", nargs="*", default=[], choices=PEERS, help="methods of OTT-JAX")
    parser.add_argument("--n-ensemble", type=int, help="members; the default suits cells and dimensions")
    parser.add_argument("--max-steps", type=int, help="the default suits the members")
    parser.add_argument("--times", nargs="*", type=float, default=[1.0], help="multiples of our steps")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--quick", action="store_true", help="two dimensions, one seed, under two minutes")
    parser.add_argument("--fresh", action="store_true", help="measure again what the CSV holds")
    options = parser.parse_args()
    if options.quick:
        options.dims, options.seeds, options.max_steps = [2, 16], 1, options.max_steps or 400
    check_peers(options.peers)
    torch.set_num_threads(options.threads)
    trained = ours(options.potentials, options.solvers)
    cases = [
        {"dim": dim, "n": n, "method": method, "seed": seed}
        | {"n_ensemble": options.n_ensemble, "max_steps": options.max_steps, "times": times}
        for dim in options.dims
        for n in options.n
        for method in [*BASELINES, *trained, *options.peers]
        for times in (options.times if method in trained else [1.0])
        for seed in range(options.seeds)
    ]
    name = "w2_benchmark_quick" if options.quick else "w2_benchmark"
    table = run(name, cases, measure, fresh=options.fresh or options.quick)
    table["method"] += [f" x{times:g}" if times != 1 else "" for times in table["times"]]
    show(wide(table, ["dim", "n"]).reset_index())
    show(table.groupby("method", sort=False)[["seconds"]].agg(["mean", "max"]).reset_index())


if __name__ == "__main__":
    main()
