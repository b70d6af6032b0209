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
    read_evaluation,
    write_evaluation,
)
from ._features import Features, Values, has_genes_decoded, read_dimensions, read_genes
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
from ._genes import BLOCK_ROWS, Decoder, Expression, Genes, find_genes, has_genes, row_blocks
from ._held_out import HeldOut, groups_of_cells, held_out_cells, read_held_out
from ._layers import check_layer, write_layers
from ._new_cells import NewCells, find_new_cells
from ._representation import dense_array
from ._results import Prediction, Results, StoredPrediction, find_prediction, read_results
from ._schema import Slots, check_absent, check_key, evaluation_slot, layer_names, slugs
from ._stored import StoredFit, fit_of_origin, read_fit
from ._write import (
    Fitted,
    Moved,
    Placed,
    announce_replaced,
    append_moved,
    check_output,
    claim,
    commit,
    new_store,
    write_fit,
    write_moved,
    write_projections,
)
