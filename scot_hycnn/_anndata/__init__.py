"""The only reader and writer of AnnData; what is imported here is what the rest of the package may use."""
# ruff: noqa: F401
# mypy: implicit-reexport

from __future__ import annotations

from ._conditions import (
    Labels,
    Mask,
    as_labels,
    booleans,
    check_columns_are_unique,
    check_names_differ,
    column_of,
    joined,
    labelled_rows,
    listed,
    listed_labels,
    matching,
    read_groups,
    read_labels,
)
from ._decode_input import BLOCK_ROWS, Decoder, Expression, Genes, check_layer, find_genes, has_genes, row_blocks
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
from ._evaluation_input import (
    EVALUATION_COLUMNS,
    HeldOut,
    check_evaluation_slot,
    evaluation_as_arrays,
    groups_of_cells,
    held_out_cells,
    read_evaluation,
    read_held_out,
)
from ._files import SUFFIXES, check_writable, read_file, read_uns, write_file, written_whole
from ._fit_input import (
    TEST,
    TRAIN,
    ConditionCells,
    FitInput,
    check_counts,
    fingerprint,
    read_fit_input,
    training_rows,
    without_targets,
)
from ._genes import Features, Values, has_genes_decoded, read_dimensions, read_genes
from ._representation import dense_array
from ._results import Prediction, Results, StoredFit, find_prediction, fit_of_origin, read_fit, read_results
from ._schema import Slots, check_absent, check_key, evaluation_slot, layer_names, slugs
from ._transport_input import NewCells, find_new_cells
from ._write import (
    Fitted,
    Moved,
    announce_replaced,
    check_output,
    claim,
    commit,
    new_store,
    placed,
    write_fit,
    write_moved,
)
