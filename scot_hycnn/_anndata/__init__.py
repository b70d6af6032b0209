"""The only reader and writer of AnnData results: arrays in, arrays out."""

from __future__ import annotations

from ._commit import commit
from ._conditions import Mask, as_labels, labelled_rows, listed_labels
from ._counts import check_counts
from ._embedding import (
    N_NEIGHBORS,
    check_projection,
    describe_projection,
    embedding_axes,
    find_embedding,
    place_predicted,
    projection_name,
    projection_stem,
    read_embedding,
    read_projection,
)
from ._evaluation import (
    EVALUATION_COLUMNS,
    check_evaluation_slot,
    evaluation_slot,
    read_evaluation,
    write_evaluation,
)
from ._features import Features, Values, has_genes_decoded, read_dimensions, read_genes
from ._files import SUFFIXES, check_writable, read_file, read_uns, write_file, written_whole
from ._genes import BLOCK_ROWS, Decoder, Expression, Genes, find_genes, has_genes, row_blocks
from ._held_out import HeldOut, groups_of_cells, held_out_cells, read_held_out
from ._labels import (
    Labels,
    booleans,
    check_columns_are_unique,
    check_names_differ,
    column_of,
    listed,
    matching,
    read_groups,
    read_labels,
)
from ._layers import check_layer, write_layers
from ._new_cells import NewCells, find_new_cells
from ._pairs import Cells, Pairs, read_pairs, without_targets
from ._representation import dense_array
from ._results import Prediction, Results, StoredPrediction, find_prediction, read_results
from ._slots import Slots, check_absent, check_key, layer_names, slugs
from ._store import check_output, new_store
from ._stored import StoredFit, fit_of_origin, read_fit
from ._training import TEST, TRAIN, fingerprint, training_rows
from ._write import (
    Fitted,
    Moved,
    Placed,
    announce_replaced,
    append_moved,
    claim,
    write_fit,
    write_moved,
    write_projections,
)

__all__ = [
    "BLOCK_ROWS",
    "EVALUATION_COLUMNS",
    "N_NEIGHBORS",
    "SUFFIXES",
    "TEST",
    "TRAIN",
    "Cells",
    "Decoder",
    "Expression",
    "Features",
    "Fitted",
    "Genes",
    "HeldOut",
    "Labels",
    "Mask",
    "Moved",
    "NewCells",
    "Pairs",
    "Placed",
    "Prediction",
    "Results",
    "Slots",
    "StoredFit",
    "StoredPrediction",
    "Values",
    "announce_replaced",
    "append_moved",
    "as_labels",
    "booleans",
    "check_absent",
    "check_columns_are_unique",
    "check_counts",
    "check_evaluation_slot",
    "check_key",
    "check_layer",
    "check_names_differ",
    "check_output",
    "check_projection",
    "check_writable",
    "claim",
    "column_of",
    "commit",
    "dense_array",
    "describe_projection",
    "embedding_axes",
    "evaluation_slot",
    "find_embedding",
    "find_genes",
    "find_new_cells",
    "find_prediction",
    "fingerprint",
    "fit_of_origin",
    "groups_of_cells",
    "has_genes",
    "has_genes_decoded",
    "held_out_cells",
    "labelled_rows",
    "layer_names",
    "listed",
    "listed_labels",
    "matching",
    "new_store",
    "place_predicted",
    "projection_name",
    "projection_stem",
    "read_dimensions",
    "read_embedding",
    "read_evaluation",
    "read_file",
    "read_fit",
    "read_genes",
    "read_groups",
    "read_held_out",
    "read_labels",
    "read_pairs",
    "read_projection",
    "read_results",
    "read_uns",
    "row_blocks",
    "slugs",
    "training_rows",
    "without_targets",
    "write_evaluation",
    "write_file",
    "write_fit",
    "write_layers",
    "write_moved",
    "write_projections",
    "written_whole",
]
