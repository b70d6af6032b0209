"""Write pbmc_planted.h5ad and its checksum next to this file: python data/make_pbmc_planted.py."""

from __future__ import annotations

import hashlib
from pathlib import Path

from scot_hycnn.datasets import pbmc_planted

TARGET = Path(__file__).with_name("pbmc_planted.h5ad")
N_CELLS = 3000  # keeps the file below 3 MB


def main() -> None:
    """Generate the cells, write them compressed, and record the SHA-256 of the file."""
    pbmc_planted(N_CELLS).write_h5ad(TARGET, compression="gzip", compression_opts=9)
    checksum = hashlib.sha256(TARGET.read_bytes()).hexdigest()
    TARGET.with_name("SHA256SUMS").write_text(f"{checksum}  {TARGET.name}\n", encoding="utf-8")
    print(f"{TARGET.name}: {TARGET.stat().st_size / 1e6:.2f} MB, sha256 {checksum}")


if __name__ == "__main__":
    main()
