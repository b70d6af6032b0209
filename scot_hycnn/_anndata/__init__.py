"""The only reader and writer of AnnData results: arrays in, arrays out."""

from __future__ import annotations

from ._evaluation import EVALUATION_COLUMNS, evaluation_slot, read_evaluation
from ._files import SUFFIXES, check_writable, read_file, read_uns, write_file
from ._pairs import Cells, Mask, NewCells, Pairs, read_new_cells, read_pairs
from ._results import Results, read_embedding, read_results
from ._slots import check_absent, slugs
from ._stored import StoredFit, fit_of_origin, read_fit
from ._write import Fitted, Moved, claim, write_fit, write_moved

__all__ = [
    "EVALUATION_COLUMNS",
    "SUFFIXES",
    "Cells",
    "Fitted",
    "Mask",
    "Moved",
    "NewCells",
    "Pairs",
    "Results",
    "StoredFit",
    "check_absent",
    "check_writable",
    "claim",
    "evaluation_slot",
    "fit_of_origin",
    "read_embedding",
    "read_evaluation",
    "read_file",
    "read_fit",
    "read_new_cells",
    "read_pairs",
    "read_results",
    "read_uns",
    "slugs",
    "write_file",
    "write_fit",
    "write_moved",
]
