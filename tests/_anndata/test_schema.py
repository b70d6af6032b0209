"""Names of slots for conditions of any name."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from scot_hycnn._anndata._schema import Slots, slugs

AWKWARD = st.sampled_from(
    ["a/b", "a_b", "A_B", "a b", "", ".", "..", "/", "β", "inverse", "inverse_a", "source", "a", "a_2", "_a"]
)


@given(st.lists(st.one_of(st.text(), AWKWARD), unique=True, max_size=12))
def test_slugs_are_safe_and_never_collide(labels):
    named = slugs(labels)
    assert list(named.values()) == labels
    assert len({slug.lower() for slug in named}) == len(labels)
    assert all(re.fullmatch(r"[A-Za-z0-9-][A-Za-z0-9_.-]{0,99}", slug) for slug in named)
    keys = [Slots.named("hycnn_ot", slug) for slug in named]
    obsm = [key for slots in keys for key in (slots.moved, slots.inverse)]
    obs = [key for slots in keys for key in (slots.displacement, slots.std, slots.out_of_support)]
    assert len(set(obsm)) == len(obsm)
    assert len(set(obs)) == len(obs)


@given(st.lists(st.from_regex(r"\A[A-Za-z0-9][A-Za-z0-9-]{0,20}\Z"), unique_by=str.lower))
def test_plain_labels_keep_their_names(labels):
    labels = [label for label in labels if not label.lower().startswith("inverse") and label.lower() != "source"]
    assert slugs(labels) == {label: label for label in labels}
