"""The verdict of the report: how it compares with simple answers, and that no two sentences contradict each other."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
import pytest

from scot_hycnn.report import verdict

VALIDATION = {
    "blend": 1.0,
    "blends": [0.0, 1.0],
    "J": 9.0,
    "J_gaussian": 10.0,
    "J_error_by_blend": [0.0, 0.2],
    "energy_distance": 0.01,
    "energy_distance_gaussian": 0.03,
    "n_source": 40,
    "n_target": 50,
}
KEPT = {**VALIDATION, "blend": 0.0}
SIMPLE = {"identity": "no change", "mean_shift": "a shift of the mean", "gaussian": "the Gaussian map"}


def table(width=0.02, paired=0.01, *, group="all", **scores):
    """Energy distances, each with an interval of this half width, and with one of the difference to the Gaussian map's.

    A score is a number, or a number and its half width.
    """
    rows = []
    base = np.atleast_1d(scores.get("gaussian", np.nan))[0]
    for method, given in scores.items():
        value, half = given if isinstance(given, tuple) else (given, width)
        half_paired = 0.0 if value == base else paired
        interval = value - half, value + half
        difference = value - base, value - base - half_paired, value - base + half_paired
        rows.append((method, "energy_distance", group, value, *interval, *difference, 1200, 300))
    names = ["method", "metric", "group", "value", "low", "high"]
    names += ["vs_gaussian", "vs_gaussian_low", "vs_gaussian_high", "n_source", "n_target"]
    return pd.DataFrame(rows, columns=names)


def say(scores, validation=None, **options):
    """The verdict; its sentences also as one text, and the details of the choice of the map as another."""
    said = verdict(VALIDATION if validation is None else validation, scores, evaluate="it", **options)
    texts = [
        " ".join(parts).replace("\N{NO-BREAK SPACE}", " ").replace("\N{MINUS SIGN}", "-")
        for parts in ([said["headline"], *said["sentences"]], said["details"])
    ]
    return said["level"], said["headline"].replace("\N{NO-BREAK SPACE}", " "), *texts


COMMON = {"identity": 7.0, "mean_shift": 0.7, "gaussian": 0.3, "replicate": (0.0, 0.02)}
# Scores; level; what the headline says; what the sentences say.
CASES = {
    "good map": ({**COMMON, "hycnn_ot": 0.1}, "part", "98.6 % .* to the observed", "clearly nearer than no change"),
    "as near as a replicate": ({**COMMON, "hycnn_ot": 0.01}, "good", "as near .* to each other", "at 0.01 "),
    "clear on the same cells": ({**COMMON, "hycnn_ot": 0.28}, "part", "96 %", "-0.02 from the Gaussian map"),
    "no clear difference": ({**COMMON, "hycnn_ot": 0.305}, "part", "95.6 %", "not clearly different from the G"),
    "worse than the Gaussian map": ({**COMMON, "hycnn_ot": 0.5}, "worse", "the Gaussian .* still: use that", "92.9 %"),
    "Gaussian map worse than a shift": (
        {**COMMON, "mean_shift": 0.1, "hycnn_ot": 0.5},
        "worse", "a shift of the mean is nearer still: use that one", "92.9 %",
    ),
    "beaten within the replicate": (
        {**COMMON, "gaussian": 0.0, "hycnn_ot": 0.019}, "worse", "the G.* map is nearer still", "farther than the G",
    ),
    "better than a Gaussian map that is worse than nothing": (
        {"identity": 0.8, "mean_shift": 1.3, "gaussian": 1.5, "hycnn_ot": 1.28, "replicate": 0.0},
        "worse", "response, but .* farther .* than no change: do not use it", "clearly farther than no change",
    ),
    "a shift is better than nothing": (
        {"identity": 0.8, "mean_shift": 0.3, "gaussian": 1.5, "hycnn_ot": 1.28, "replicate": 0.0},
        "worse", "farther .* than no change: use a shift of the mean, which is nearer", "a shift of the mean is at 0.3",
    ),
    "not clearly different from no change": (
        {"identity": 0.8, "mean_shift": 0.9, "gaussian": 0.82, "hycnn_ot": 0.79, "replicate": 0.0},
        "open", "response, but .* not clearly nearer .* than no change$", "not clearly different from no change",
    ),
    "not clearly different from no change, but a shift is": (
        {"identity": 0.8, "mean_shift": 0.4, "gaussian": 0.82, "hycnn_ot": 0.79, "replicate": 0.0},
        "open", "not clearly nearer .* than no change, while a shift of the mean is", "a shift of the mean is at 0.4",
    ),
    "no response": (
        {"identity": 0.01, "mean_shift": 0.01, "gaussian": 0.012, "hycnn_ot": 0.012, "replicate": 0.0},
        "open", "No response is seen", "no response, or it is too small",
    ),
    "no response by the interval of no change": (
        {"identity": (0.05, 0.06), "mean_shift": 0.05, "gaussian": 0.05, "hycnn_ot": 0.05, "replicate": (0.0, 0.001)},
        "open", "No response is seen", "no response, or it is too small",
    ),
    "no response, and cells moved": (
        {"identity": 0.01, "mean_shift": 0.01, "gaussian": 0.3, "hycnn_ot": 0.3, "replicate": 0.0},
        "worse", "No response .* farther .* than no change: do not use it", "no response, or it is too small",
    ),
    "no replicate": (
        {"identity": 7.0, "gaussian": 0.3, "hycnn_ot": 0.1}, "part", "nearer .* than no change$", "at 0.1 ",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_the_verdict_in_words(case):
    scores, wanted, headline, sentence = CASES[case]
    level, found, text, details = say(table(**scores))
    assert level == wanted
    assert re.search(headline, found)
    assert re.search(sentence, text)
    assert "1,200 source and 300 observed cells" in text
    assert f"No change is at {np.atleast_1d(scores['identity'])[0]:g} " in text
    # The choice between networks and Gaussian map stands apart, and not in the headline.
    assert "40 source and 50 target validation cells, the networks lowered" in details
    assert "by 1 ± 0.2 (standard error)" in details
    assert "networks" not in text


def test_the_order_of_the_verdict():
    """Is there a response, is it as good as a replicate, where not, and is it better than simple answers."""
    groups = [table(**COMMON, hycnn_ot=value, group=group) for group, value in {"B": 0.01, "Mono": 0.5}.items()]
    text = say(pd.concat([table(**COMMON, hycnn_ot=0.1), *groups]))[2]
    found = [
        text.index(part)
        for part in ("No change is at 7", "The prediction is at 0.1", "Mono (0.5", "a shift of the mean is at")
    ]
    assert found == sorted(found)


def test_the_headline_is_that_of_the_same_composition():
    """The best score of all cells as they are does not help a map that changes the composition."""
    weighted = table(**COMMON, hycnn_ot=0.5, group="all, same composition")
    level, headline, text, _ = say(pd.concat([table(**COMMON, hycnn_ot=0.0), weighted]))
    assert level == "worse"
    assert "the Gaussian map is nearer still" in headline
    assert "weighted" in text
    assert "weighted" not in say(table(**COMMON, hycnn_ot=0.0))[2]


def test_a_group_that_is_farther_than_its_replicate_is_named():
    values = {"all, same composition": 0.01, "all": 0.0, "B": 0.01, "T": 0.03, "Mono": 0.25}
    level, headline, text, _ = say(pd.concat([table(**COMMON, hycnn_ot=v, group=g) for g, v in values.items()]))
    assert level == "part"
    assert headline.endswith("1 of 3 groups (Mono)")
    assert "Mono (0.25, replicates up to 0.02)" in text
    level, headline, text, _ = say(
        pd.concat([table(**COMMON, hycnn_ot=v, group=g) for g, v in values.items() if g != "Mono"])
    )
    assert level == "good"
    assert "none of 2 groups" in text


def kept(ours, replicate=0.96, *, group="all, same composition"):
    rows = [("hycnn_ot", ours), ("replicate", replicate)]
    table = pd.DataFrame(rows, columns=["method", "value"]).assign(metric="kept_group", group=group)
    return table.assign(low=table["value"] - 0.01, high=table["value"] + 0.01)


@pytest.mark.parametrize(("share", "is_low"), [(0.955, False), (0.8, True)])
def test_cells_that_change_their_group(share, is_low):
    distances = table(**COMMON, hycnn_ot=0.01, group="all, same composition")
    level, headline, text, _ = say(pd.concat([distances, kept(share), kept(0.4, 0.9, group="NK")]))
    assert level == ("part" if is_low else "good")
    assert ("into other groups" in headline) == is_low
    assert f"{100 * share:g} % of the predicted cells" in text
    assert "96 %" in text
    assert ("NK: 40 %, for 90 %" in text) == is_low


KEPT_CASES = {
    "linear response": ({**COMMON, "gaussian": 0.01, "hycnn_ot": 0.01}, {}, "good", "response is linear"),
    "linear, few steps": (
        {**COMMON, "gaussian": 0.01, "hycnn_ot": 0.01}, {"max_steps": 20}, "good", "response is linear",
    ),
    "not trained enough": ({**COMMON, "hycnn_ot": 0.3}, {"max_steps": 20}, "part", "not trained .* max_steps=20"),
    "not found": ({**COMMON, "hycnn_ot": 0.3}, {"max_steps": 600}, "part", "does not explain all of the response"),
    "no response": (
        {"identity": 0.01, "mean_shift": 0.01, "gaussian": 0.012, "hycnn_ot": 0.012, "replicate": 0.0},
        {"max_steps": 20}, "open", "says nothing if there is no response",
    ),
    "worse than a shift": ({**COMMON, "mean_shift": 0.1, "hycnn_ot": 0.3}, {}, "worse", "does not explain all"),
    "worse than nothing": (
        {"identity": 0.8, "mean_shift": 1.0, "gaussian": 1.5, "hycnn_ot": 1.5, "replicate": 0.0},
        {}, "worse", "does not explain all",
    ),
}  # fmt: skip
REASONS = ["response is linear", "not trained enough", "does not explain all", "if there is no response that"]


@pytest.mark.parametrize("case", KEPT_CASES)
def test_why_the_gaussian_map_was_kept(case):
    scores, options, wanted, sentence = KEPT_CASES[case]
    level, headline, text, details = say(table(**scores), KEPT, **options)
    assert level == wanted
    assert re.search(sentence, details)
    assert "which was kept" in details
    assert sum(reason in details for reason in REASONS) == (2 if case == "linear, few steps" else 1)
    # It is no rival of itself.
    assert "Gaussian" not in text
    asked_for = say(table(**scores), KEPT, is_trained=False)
    assert asked_for[:3] == (level, headline, text)
    assert "No network was trained" in asked_for[3]
    assert not any(reason in asked_for[3] for reason in REASONS)


def test_a_fit_that_has_seen_no_response():
    quiet = table(identity=0.01, mean_shift=0.01, gaussian=0.01, hycnn_ot=0.01, replicate=0.0)
    silent = {**KEPT, "p_no_change": 0.3}
    assert "fit has seen no response: its source and target cells are as near" in say(quiet, silent)[2]
    assert "fit has seen no response" in say(None, silent)[2]
    assert "fit has seen no response" not in say(quiet, {**KEPT, "p_no_change": 0.001})[2]
    # The held-out cells have the last word.
    assert "no response" not in say(table(**COMMON, hycnn_ot=0.3), silent)[2]


def test_a_verdict_without_scores():
    level, headline, text, details = say(None, KEPT)
    assert (level, headline[:13]) == ("open", "Not evaluated")
    assert "Run it." in text
    assert "the networks were not better than the closed-form Gaussian map, which was kept" in details
    assert "not trained enough" in say(None, KEPT, max_steps=20)[3]
    assert "not trained enough" not in say(None, max_steps=20)[3]
    assert "No network was trained" in say(None, KEPT, is_trained=False, max_steps=20)[3]
    worse = say(None, {**VALIDATION, "J": 11.0})[3]
    assert "raised the objective J of optimal transport above that of the Gaussian map by 1 ± 0.2" in worse
    assert "is not finite" in say(None, {**VALIDATION, "J": np.inf})[3]
    assert "a blend of 50 % networks" in say(None, {**VALIDATION, "blend": 0.5})[3]
    assert "at least 12 of the evaluated" in say(table(**COMMON, hycnn_ot=0.1), n_seen=12)[2]
    for scores in ({"mean_shift": 7.0}, {"gaussian": 0.3, "hycnn_ot": 0.1}, {"identity": np.nan, "hycnn_ot": 0.1}):
        level, headline, text, _ = say(table(**scores))
        assert (level, headline[:13]) == ("open", "Not evaluated")
        assert "no energy distance of both" in text


@pytest.mark.parametrize(
    ("ours", "headline"), [(0.1, "98.6 %"), (0.5, "the Gaussian map is nearer"), (8, "is farther")]
)
def test_without_intervals_nothing_is_certain(ours, headline):
    scores = table(**COMMON, hycnn_ot=ours)
    scores[[name for name in scores if "low" in name or "high" in name]] = np.nan
    level, found, text, _ = say(scores)
    assert level == "open"
    assert re.search(f"{headline}.*; without intervals this may be chance", found)
    assert "differs by" not in text


def test_the_interval_of_a_difference_to_another_method_is_the_sum_of_two():
    """Only differences to the Gaussian map are bootstrapped on the same cells; others are bounded by sums of two."""
    wide = {name: (np.atleast_1d(value)[0], 0.2) for name, value in COMMON.items()}
    assert "from no change (95 % interval -6.92 to -6.88)" in say(table(**wide, hycnn_ot=(0.1, 0.2)))[2]
    narrow = table(paired=5.0, **COMMON, hycnn_ot=0.1)
    assert "from no change (95 % interval -6.94 to -6.86)" in say(narrow)[2]


def test_groups_are_counted_by_what_their_scores_say():
    values = {"all": 0.1, "B": 0.01, "T": 0.3, "NK": 0.5, "Mono": 9.0, "DC": 7.0}
    scores = pd.concat([table(**COMMON, hycnn_ot=value, group=group) for group, value in values.items()])
    said = (
        "Of 5 groups that were scored one by one, the prediction is as near as a replicate in 1 (B); nearer than no "
        "change, but not as near as a replicate, in 1 (T); nearer than no change, but less near than a simpler answer, "
        "in 1 (NK); not clearly different from no change in 1 (DC); farther than no change in 1 (Mono)."
    )
    assert said in say(scores)[2]
    many = [table(**COMMON, hycnn_ot=0.1, group=f"type {i}") for i in range(40)]
    text = say(pd.concat([table(**COMMON, hycnn_ot=0.1), *many]))[2]
    assert "in 40 (type 0, " in text
    assert "type 9 and 30 more)" in text
    assert "type 10" not in text


def random_tables(n, seed=0):
    """Scores of all magnitudes and widths, ties and gaps among them."""
    rng = np.random.default_rng(seed)
    for _ in range(n):
        scale = 10.0 ** rng.uniform(-3, 1)
        values = {name: scale * rng.choice([rng.random(), rng.random() ** 4, 0.5]) for name in (*SIMPLE, "hycnn_ot")}
        values["replicate"] = scale * rng.normal(0, 0.05)
        width, paired = (scale * 10.0 ** rng.uniform(-4, 0) for _ in range(2))
        if rng.random() < 0.3:
            values["hycnn_ot"] = values["gaussian"]  # the Gaussian map was kept
        for name in ("replicate", "mean_shift"):
            if rng.random() < 0.1:
                del values[name]
        scores = table(width, paired, **values)
        if rng.random() < 0.1:
            scores[[name for name in scores if "low" in name or "high" in name]] = np.nan
        yield values, scores, KEPT if values["hycnn_ot"] == values["gaussian"] else VALIDATION


def test_no_two_statements_contradict_each_other():
    levels = []
    for values, scores, validation in random_tables(400):
        level, headline, text, details = say(scores, validation, max_steps=20)
        levels.append(level)
        ours, nothing = values["hycnn_ot"], values["identity"]
        said = {
            "replicate": headline.startswith("There is") and "as near to the observed cells as these" in headline,
            "short": "of the way to the observed cells" in headline or headline.endswith("than no change"),
            "beaten": "nearer still" in headline,
            "farther": "farther from the observed cells than no change" in headline,
            "unclear": "not clearly nearer to the observed cells than no change" in headline,
            "silent": headline.startswith("No response is seen: "),
        }
        is_nearer = said["replicate"] or said["beaten"] or (said["short"] and not (said["unclear"] or said["farther"]))
        # What is said first is true.
        assert is_nearer + said["farther"] + said["unclear"] + said["silent"] == 1, headline
        assert not is_nearer or ours < nothing
        assert not said["farther"] or ours > nothing
        assert headline.startswith("There is a response") or not is_nearer
        assert not ("There is a response" in headline and "o response is seen" in text)
        # A conclusion never goes against the headline.
        assert (level == "good") <= said["replicate"]
        if "nearer still" in headline:
            assert level in ("worse", "open")
        if not said["replicate"]:
            assert "as near as a replicate: " not in text
            assert "response is linear" not in details
        # Nor against a comparison that is spelled out.
        compared = re.search(r"The prediction (is .*?): on the same cells", text)
        if compared and is_nearer:
            assert "farther than no change" not in compared[1]
            assert ("is clearly farther than" in compared[1]) == said["beaten"]
        # What is recommended is nearer than no change, than the prediction, and than the other simple answer.
        used = re.search(r"(?:but|use|while) (a shift of the mean|the Gaussian map)(?: is|,)", headline)
        if used:
            name = next(name for name, words in SIMPLE.items() if words == used[1])
            assert values[name] < min(ours, nothing)
            assert values[name] <= min(values[other] for other in ("mean_shift", "gaussian") if other in values)
    assert {"good", "part", "worse", "open"} == set(levels)
    assert min(levels.count(level) for level in set(levels)) > 10


@pytest.mark.parametrize(("p_value", "says"), [(0.005, False), (0.4, True)])
def test_a_response_that_the_fit_has_seen_is_not_denied(p_value, says):
    """Few evaluated cells may not show it."""
    scores = table(0.4, 0.4, identity=0.08, mean_shift=0.08, gaussian=-0.1, hycnn_ot=-0.12, replicate=(0.0, 0.6))
    said = verdict(VALIDATION | {"p_no_change": p_value}, scores, evaluate="it")
    assert said["level"] == "open"
    assert ("No response" in said["headline"]) == says
    assert "fit has seen" in " ".join(said["sentences"])


def test_a_distance_that_stays_is_not_said_to_change():
    same = {**VALIDATION, "energy_distance_gaussian": 0.01}
    assert "from 0.01 to 0.01" not in "".join(say(None, same)[1:])
    assert "from 0.01 to 0.01" not in "".join(say(table(**COMMON, hycnn_ot=0.1), same)[1:])
    assert "from 0.03 to 0.01" in "".join(say(table(**COMMON, hycnn_ot=0.1))[1:])


def test_maps_on_groups_left_out_are_listed_from_the_nearest_on():
    ladder = {
        "winner": "shift",
        "ladder": np.array(["no change", "shift"]),
        "ladder_mean": np.array([0.5, 0.25]),
        "ladder_error": np.array([0.1, 0.05]),
    }
    said = " ".join(map(str, say(None, KEPT | ladder)))
    assert "shift 0.25 ± 0.05, no change 0.5 ± 0.1" in said
    for damaged in ({"ladder_mean": np.array([0.5])}, {"ladder_error": np.array(["a", "b"])}):
        assert "chosen: shift." in " ".join(map(str, say(None, KEPT | ladder | damaged)))
