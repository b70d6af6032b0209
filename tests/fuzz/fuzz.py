"""Fuzz a reader of untrusted files: ``python tests/fuzz/fuzz.py map_file --seconds 60``.

With atheris (extra ``fuzz``) the inputs are guided by the branches that they reach. An input that breaks the contract
is written to the folder of the corpus, and ``--repeat FILE`` runs it again. ``map_file,h5ad --random N,M`` needs no
fuzzer: it draws N and M inputs from a fixed seed, which the test suite does.
"""

from __future__ import annotations

import argparse
import faulthandler
import importlib
import random
import signal
import sys
import tempfile
import warnings
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from tqdm import tqdm

TARGETS = ("map_file", "h5ad")
# A reader that takes longer is taken to hang.
TIMEOUT_S = 20
# A limit for the memory of C libraries, which tracemalloc does not measure.
MEMORY_MB = 4096


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("target", choices=(*TARGETS, ",".join(TARGETS)))
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--runs", type=int, default=-1, help="End after so many inputs. [default: when the time is up]")
    parser.add_argument("--seed", type=int, default=1, help="0 draws one. [default: 1]")
    parser.add_argument("--random", metavar="N,M")
    parser.add_argument("--repeat", type=Path, metavar="FILE")
    parser.add_argument("--corpus", type=Path, help="Folder to begin with and to add to. [default: seeds alone]")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    # There must be no other thread, such as that of a progress bar: Python 3.11 sometimes crashes if a thread frees
    # memory while tracemalloc starts or stops (CPython issue 128679).
    tqdm.monitor_interval = 0
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        if arguments.random is None and arguments.repeat is None:
            with_atheris(arguments, scratch)
            return
        if arguments.repeat is not None:
            target = load(arguments.target)
            print("taken" if target.check(arguments.repeat.read_bytes(), scratch / "input") else "refused")
            return
        for name, number in zip(arguments.target.split(","), map(int, arguments.random.split(",")), strict=True):
            n_taken = at_random(load(name), scratch, number)
            print(f"{name}: {number} inputs, {n_taken} taken, the others refused with an error of ours")


def load(name: str, instrument: Callable[[], Any] = nullcontext) -> Any:
    """Import the target."""
    with instrument():
        return importlib.import_module(name)


def at_random(target: Any, scratch: Path, n_inputs: int) -> int:
    """Check random inputs, and return the number that the reader accepted."""
    draw = random.Random(0)
    seeds = target.seeds(scratch)
    faulthandler.register(signal.SIGALRM, chain=True)

    def flip(content: bytes) -> bytes:
        changed = bytearray(content)
        for _ in range(draw.randint(1, 8)):
            if changed:
                changed[draw.randrange(len(changed))] = draw.randrange(256)
        return bytes(changed)

    n_taken = 0
    for i in range(n_inputs):
        content = seeds[i % len(seeds)]
        for _ in range(draw.randint(0, 3)):
            content = target.mutate(content, draw, flip)
        signal.alarm(TIMEOUT_S)
        n_taken += target.check(content, scratch / "input")
        signal.alarm(0)
    return n_taken


def with_atheris(arguments: argparse.Namespace, scratch: Path) -> None:
    """Fuzz until the time is over or the contract is broken; then the exit code is not 0."""
    import atheris

    target = load(
        arguments.target, lambda: atheris.instrument_imports(include=["scot_hycnn"], enable_loader_override=False)
    )
    corpus = arguments.corpus or scratch / "corpus"
    corpus.mkdir(parents=True, exist_ok=True)
    for i, content in enumerate(target.seeds(scratch)):
        (corpus / f"seed_{i}").write_bytes(content)

    def one_input(content: bytes) -> None:
        target.check(content, scratch / "input")

    def mutator(content: bytes, max_size: int, seed: int) -> bytes:
        changed = target.mutate(content, random.Random(seed), lambda part: atheris.Mutate(part, len(part) + 64))
        return changed[:max_size]

    options = [
        f"-seed={arguments.seed}",
        f"-max_total_time={arguments.seconds}",
        f"-runs={arguments.runs}",
        f"-max_len={target.MAX_LENGTH}",
        f"-timeout={TIMEOUT_S}",
        f"-rss_limit_mb={MEMORY_MB}",
        f"-artifact_prefix={arguments.corpus or Path.cwd()}/",
        "-print_final_stats=1",
        "-len_control=0",
    ]
    atheris.Setup([sys.argv[0], *options, str(corpus)], one_input, custom_mutator=mutator)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
