"""Every control of the report, operated in a real browser: what it changes, and that nothing fails on the way."""

from __future__ import annotations

import os
import shutil
import warnings

import numpy as np
import pytest

import scot_hycnn as sh

selenium = pytest.importorskip("selenium", reason="selenium is not installed: pip install 'scot-hycnn[browser]'")
from selenium import webdriver  # noqa: E402
from selenium.webdriver import ActionChains, Keys  # noqa: E402
from selenium.webdriver.chrome.service import Service  # noqa: E402
from selenium.webdriver.common.actions.action_builder import ActionBuilder  # noqa: E402
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.support.ui import Select  # noqa: E402

HOSTILE = "<img src=x onerror=alert(1)><script>alert(1)</script>"
BROWSER, DRIVER = shutil.which("chromium") or shutil.which("google-chrome"), shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(
    not (BROWSER and DRIVER), reason="no chromium with chromedriver: apt-get install chromium chromium-driver"
)
WIDE, NARROW = (1280, 900), (390, 844)


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """Report of two targets, the second of them not evaluated and kept at the Gaussian map."""
    adata = sh.datasets.pbmc_planted(n_cells=400)
    adata.obs["cell_type"] = adata.obs["cell_type"].astype(str).replace("Dendritic", HOSTILE).astype("category")
    labels = adata.obs["condition"].astype(str)
    labels.iloc[300:] = HOSTILE
    adata.obs["condition"] = labels
    adata.obsm["X_umap"] = np.tanh(adata.obsm["X_pca"][:, :2] / 10)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sh.tl.hycnn_ot(
            adata, "control", ["IFN-beta", HOSTILE], n_pcs=5, max_steps=20, hidden=(8, 8), n_ensemble=2, rng=1
        )
        sh.tl.evaluate(adata, groupby="cell_type", target="IFN-beta", n_bootstrap=5)
    adata.uns["hycnn_ot"]["status"]["IFN-beta"] = "The fit met 3 non-finite gradients in 20 steps."
    adata.uns["hycnn_ot"]["outcome"]["IFN-beta"] = "recovered"
    adata.obs["hycnn_ot_out_of_support_IFN-beta"] = np.where(np.arange(400) < 10, 2.5, 0.5)
    return sh.pl.report(adata, tmp_path_factory.mktemp("report") / "report.html", groupby="cell_type")


@pytest.fixture(scope="module")
def chromium():
    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER
    arguments = ["--headless=new", "--disable-gpu", "--disable-dev-shm-usage"]
    if os.name == "posix" and os.geteuid() == 0:
        arguments.append("--no-sandbox")  # chromium's sandbox does not start for root, as in a container
    for argument in arguments:
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    driver.set_script_timeout(20)
    yield driver
    driver.quit()


class Page:
    """A page as its reader sees it."""

    def __init__(self, driver):
        self.driver = driver

    def __call__(self, selector):
        return self.driver.find_element(By.CSS_SELECTOR, selector)

    def all(self, selector):
        return self.driver.find_elements(By.CSS_SELECTOR, selector)

    def texts(self, selector):
        script = "return [...document.querySelectorAll(arguments[0])].map((each) => each.textContent)"
        return self.driver.execute_script(script, selector)

    def run(self, script):
        return self.driver.execute_script(script)

    def picture(self):
        return self.run("return document.getElementById('map').toDataURL()")

    def choose(self, selector, text):
        Select(self(selector)).select_by_visible_text(text)

    def click(self, selector):
        element = self(selector)
        self.run("window.scrollTo(0, 0)")
        self.driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", element)
        element.click()

    def press(self, *keys):
        ActionChains(self.driver).send_keys(*keys).perform()


@pytest.fixture
def open_page(chromium, file):
    """Open the report in a window of some size and colour scheme; afterwards nothing must have gone wrong."""

    def open_it(size=WIDE, scheme="light", path=file):
        metrics = {"width": size[0], "height": size[1], "deviceScaleFactor": 1, "mobile": size[0] < 500}
        chromium.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        chromium.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
        chromium.get(path.as_uri())
        return Page(chromium)

    yield open_it
    assert chromium.get_log("browser") == []
    requests = chromium.execute_script("return performance.getEntriesByType('resource').map((each) => each.name)")
    assert requests == []


@pytest.fixture
def page(open_page):
    return open_page()


def test_labels_are_not_executed(page):
    page.choose("#target", HOSTILE)
    page.choose("#colour", "cell_type")
    assert page.all("img, main script, iframe") == []  # an alert would have failed the command above
    assert HOSTILE in page.texts("#legend button")


def test_layers_arrows_and_colours_change_the_map(page):
    seen = {page.picture()}
    for box in ("#layer-source", "#layer-predicted", "#layer-observed", "#arrows"):
        page.click(box)
        assert page.picture() not in seen
        seen.add(page.picture())
    assert page("#map").get_attribute("aria-label").startswith("Map of no cells in UMAP1 and UMAP2")
    page.click("#layer-source")
    assert "Map of source cells" in page("#map").get_attribute("aria-label")
    for name in page.texts("#colour option"):
        page.choose("#colour", name)
        assert f"coloured by {name}" in page("#map").get_attribute("aria-label")
    assert page.texts("#colour option")[:3] == ["kind of cell", "cell_type", "displacement"]
    assert "above 1: far from the training cells" in page("#legend").text
    with_space = page.picture()
    page("#arrows").send_keys(Keys.SPACE)
    assert page.picture() != with_space


def test_the_index_chooses_sorts_and_filters(page):
    names = page.texts("#index-table tbody td:first-child")
    assert set(names) == {"IFN-beta", HOSTILE}
    page.click("#index-table tbody tr:nth-child(2) td:first-child")
    assert page("#target").get_attribute("value") == "1"
    assert page.texts("#index-table tr.chosen td:first-child") == [names[1]]
    for _ in range(2):
        page.click("#index-table th:first-child button")
    assert page.texts("#index-table tbody td:first-child") == sorted(names, reverse=True)
    page("#index-filter").send_keys("ifn")
    assert page.texts("#index-table tbody td:first-child") == ["IFN-beta"]


def test_planes(page):
    before = page.picture()
    assert "arrows show the direction, not the size" in page("#cells-note").text
    page.choose("#plane", "PC1, PC2")
    assert page.picture() != before
    assert "arrows are exact" in page("#cells-note").text
    assert "All 200 source and 100 observed cells are drawn" in page("#cells-note").text


def test_cells_move_along_the_map(page):
    before = page.picture()
    slider = page("#way")
    slider.send_keys(Keys.ARROW_LEFT)
    assert page("#way-text").text == "95 %"
    assert page.picture() != before
    slider.send_keys(Keys.HOME)
    assert page("#way-text").text == "0 %"
    for box in ("#arrows", "#layer-observed"):
        page.click(box)
    # At the start of their way predicted cells are where source cells are.
    script = "return JSON.stringify(places('predicted')) === JSON.stringify(places('source'))"
    assert page.run(script)


def test_a_group_is_picked_out_in_the_legend(page):
    page.choose("#colour", "cell_type")
    before = page.picture()
    page.click("#legend button")
    name = page.texts("#legend button")[0]
    assert page("#legend button").get_attribute("aria-pressed") == "true"
    assert page.picture() != before
    assert page.run("return document.activeElement.textContent") == name
    page.press(Keys.ENTER)
    assert page("#legend button").get_attribute("aria-pressed") == "false"
    assert page.picture() == before


def test_cells_have_tips(page):
    page.driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", page("#map"))
    x, y, kind, index = page.run("return drawn.find((each) => each[2] === 'predicted' && each[3] < 10)")
    canvas = page("#map")
    size = canvas.size
    ActionChains(page.driver).move_to_element_with_offset(
        canvas, round(x + 1 - size["width"] / 2), round(y + 1 - size["height"] / 2)
    ).perform()
    assert page("#tip").is_displayed()
    assert "cell_type: " in page("#tip").text
    expected = page.driver.execute_script("return say(arguments[0], arguments[1])", kind, index)
    assert "displacement: " in expected
    assert "out of support: 2.5 (above 1: far from the training cells)" in expected
    ActionChains(page.driver).move_to_element(page("#title")).perform()
    assert not page("#tip").is_displayed()


def test_the_cross_is_moved_by_keys(page):
    page.click("#map")
    page.press(Keys.ESCAPE)
    before = page.picture()
    said = set()
    for key in (Keys.ARROW_LEFT, Keys.ARROW_UP, Keys.ARROW_RIGHT, Keys.ARROW_DOWN) * 3:
        page.press(key)
        said.add(page("#map-said").get_attribute("textContent"))
    assert page.picture() != before
    for _ in range(20):
        page.press(Keys.ARROW_LEFT)
        said.add(page("#map-said").get_attribute("textContent"))
    assert any("displacement: " in each or "observed: " in each for each in said)
    page.press(Keys.ESCAPE)
    assert not page("#tip").is_displayed()


@pytest.mark.parametrize("section", ["groups", "scores", "training"])
def test_marks_have_labels_and_tips(page, section):
    pointer = ActionBuilder(page.driver)
    pointer.pointer_action.move_to_location(2, 2)  # beside the page
    pointer.perform()
    marks = page.all(f"#{section}-chart g[role=img], #{section}-chart circle[role=img]")
    for mark in marks[-2:]:
        page.driver.execute_script("arguments[0].scrollIntoView({block: 'center'}); arguments[0].focus()", mark)
        label = mark.get_attribute("aria-label").replace("\N{NO-BREAK SPACE}", " ")
        assert page("#tip").text.replace("\n", ", ") == label
        page.driver.execute_script("arguments[0].blur()", mark)
        assert not page("#tip").is_displayed()
    words = {"groups": "median displacement", "scores": "95 % interval", "training": "Gaussian map"}[section]
    assert words in marks[-1].get_attribute("aria-label")
    ActionChains(page.driver).move_to_element(marks[-1]).perform()
    assert words in page("#tip").text


def test_genes_have_tips(page):
    dot = page.all("#genes-chart circle")[-1]
    page.driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", dot)
    ActionChains(page.driver).move_to_element(dot).perform()
    assert "predicted change: " in page("#tip").text


def test_scores_of_other_metrics_and_groups(page):
    before = page("#scores-chart").get_attribute("innerHTML")
    page.choose("#metric", "correlation of changes (Pearson Δ)")
    assert page("#scores-chart").get_attribute("innerHTML") != before
    assert "not defined" in page("#scores-chart").text  # of the identity
    groups = page.texts("#score-group option")
    assert groups[0] == "all, same composition"
    assert page.run("return document.getElementById('score-group').value") == groups[0]
    page.choose("#score-group", groups[1])
    assert "200 control, 100 IFN-beta" in page("#scores .which").text
    page.choose("#score-group", groups[2])
    assert groups[2] in page("#scores-note").text


def test_the_choice_of_the_map_is_folded_away(page):
    assert not page("#verdict-details").is_displayed()
    page.click("#verdict summary")
    assert "validation cells" in page("#verdict-details").text


@pytest.mark.parametrize("section", ["groups", "scores"])
def test_tables_of_numbers_can_be_opened(page, section):
    assert not page(f"#{section}-table").is_displayed()
    page.click(f"#{section} summary")
    assert page(f"#{section}-table").is_displayed()
    page(f"#{section} summary").send_keys(Keys.ENTER)
    assert not page(f"#{section}-table").is_displayed()


TABLES = ["groups-table", "scores-table", "genes-table", "certificate-table", "parameters-table", "versions-table"]


@pytest.mark.parametrize("table", TABLES)
def test_every_column_sorts(page, table):
    if table in ("groups-table", "scores-table"):
        page.click(f"#{table.split('-')[0]} summary")
    n_columns = len(page.all(f"#{table} th button"))
    for i in range(1, n_columns + 1):
        cells, head = f"#{table} td:nth-child({i})", f"#{table} th:nth-child({i})"
        orders = []
        page.click(f"{head} button")
        for _ in range(2):
            orders.append((page(head).get_attribute("aria-sort"), page.texts(cells)))
            page.press(Keys.ENTER)  # the button keeps the focus
        assert {order for order, _ in orders} == {"ascending", "descending"}
        numbers = (
            [
                [float(text.replace("\N{MINUS SIGN}", "-").replace(",", "")) for text in texts if text != "\N{EN DASH}"]
                for _, texts in orders
            ]
            if "number" in (page(head).get_attribute("class") or "")
            else None
        )
        for order, found in zip((order for order, _ in orders), numbers or [], strict=False):
            assert found == sorted(found, reverse=order == "descending")
        assert sorted(orders[0][1]) == sorted(orders[1][1])


def test_genes_are_found_and_all_shown(page):
    assert len(page.all("#genes-table tbody tr")) == 15
    page.click("#gene-all")
    assert len(page.all("#genes-table tbody tr")) == 100
    assert page("#gene-all").get_attribute("aria-pressed") == "true"
    page.click("#gene-all")
    name = page.texts("#genes-table tbody td:first-child")[3]
    page("#gene-filter").send_keys(name.lower())
    assert name in page.texts("#genes-table tbody td:first-child")
    assert name in page.texts("#genes-chart text")
    page("#gene-filter").send_keys("nothing")
    assert page.all("#genes-table tbody tr") == []
    assert "None of them has that name" in page("#genes-note").text


def test_parameters_are_found(page):
    page("#parameter-filter").send_keys("HIDD")
    assert page.texts("#parameters-table tbody td") == ["hidden", "8, 8"]


def test_the_other_condition(page):
    assert "3 non-finite gradients" in page("#status").text
    before = page.picture(), page("#facts").text, page("#training-chart").get_attribute("innerHTML")
    assert page("#scores-controls").is_displayed()
    page.choose("#target", HOSTILE)
    assert not page("#scores-controls").is_displayed()
    assert "No evaluation is stored for this condition. Run sh.tl.evaluate" in page("#scores-note").text
    after = page.picture(), page("#facts").text, page("#training-chart").get_attribute("innerHTML")
    assert all(one != other for one, other in zip(before, after, strict=True))
    page.choose("#target", "IFN-beta")
    assert page.picture() == before[0]


def test_light_and_dark(open_page):
    page = open_page(scheme="dark")
    assert page.run("return document.documentElement.dataset.theme") == "dark"
    before = page.picture()
    page.click("#theme")
    assert page.run("return document.documentElement.dataset.theme") == "light"
    assert page("#theme").text == "Dark"
    assert page.picture() != before
    page("#theme").send_keys(Keys.ENTER)
    assert page("#theme").get_attribute("aria-pressed") == "true"


CONTRAST = """
const light = (colour) => {
  const parts = colour.match(/[\\d.]+/g).slice(0, 3).map((part) => part / 255)
    .map((part) => (part <= 0.03928 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4));
  return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2];
};
const paper = (node) => {
  const colour = getComputedStyle(node).backgroundColor;
  return /, 0\\)$/.test(colour) || colour === "transparent" ? paper(node.parentElement) : colour;
};
const low = [];
for (const node of document.querySelectorAll("body *:not(script):not(style):not(noscript)")) {
  const own = [...node.childNodes].some((child) => child.nodeType === 3 && child.textContent.trim());
  if (!own || !node.getClientRects().length) continue;
  const style = getComputedStyle(node);
  const [a, b] = [light(node.closest("svg") ? style.fill : style.color), light(paper(node))].sort((p, q) => q - p);
  const ratio = (a + 0.05) / (b + 0.05);
  if (ratio < 4.5) low.push([node.tagName, node.textContent.slice(0, 30), ratio]);
}
return low;
"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_has_enough_contrast(open_page, scheme):
    page = open_page(scheme=scheme)
    for target in ("IFN-beta", HOSTILE):
        page.choose("#target", target)
        assert page.run(CONTRAST) == []


def test_the_keyboard_reaches_every_control(page):
    """All of them: a new control has to be found here, and to be operated in a test of its own."""
    page.run("document.querySelectorAll('details').forEach((each) => { each.open = true; })")
    page.choose("#colour", "cell_type")
    page.run("document.activeElement.blur(); window.scrollTo(0, 0)")
    wanted = page.run(
        "return [...document.querySelectorAll('a, button, select, input, summary, [tabindex]')]"
        ".filter((each) => each.getClientRects().length).length"
    )
    # Once around: the page has fewer than 200 of them.
    page.run("window.reached = new Set(); document.addEventListener('focusin', (e) => reached.add(e.target))")
    for _ in range(wanted // 20 + 1):
        page.press(*[Keys.TAB] * 20)
    assert page.run("return reached.size") == wanted
    named = set(page.run("return [...reached].map((each) => each.id).filter(Boolean)"))
    operated = {"theme", "target", "plane", "colour", "layer-source", "layer-predicted", "layer-observed", "arrows"}
    operated |= {"way", "map", "metric", "score-group", "gene-filter", "gene-all", "parameter-filter"}
    operated |= {"index-title", "index-filter"}
    assert named == operated


def test_every_control_has_a_name(page):
    unnamed = page.run(
        "return [...document.querySelectorAll('button, select, input, canvas, [role=img]')]"
        ".filter((each) => !(each.labels && each.labels.length) && !each.getAttribute('aria-label')"
        " && !each.textContent.trim()).map((each) => each.outerHTML)"
    )
    assert unnamed == []


def test_the_skip_link(page):
    page.press(Keys.TAB)
    assert page.run("return document.activeElement.className") == "skip"
    page.press(Keys.ENTER)
    assert page.run("return location.hash") == "#main"


def test_every_section_says_which_cells_it_shows(page):
    for section in ("cells", "groups", "genes"):
        assert page(f"#{section} .which").text == "cells of the fit: 200 control, 100 IFN-beta"
    for section in ("training", "certificate"):
        assert page(f"#{section} .which").text.startswith("validation cells, n = ")
    assert page("h1").text == f"control → {len(page.texts('#target option'))} conditions"


def test_tables_fit_a_narrow_page_and_no_box_is_left_empty(open_page):
    page = open_page(NARROW)
    scrolled = page.run(
        "return [...document.querySelectorAll('#certificate .scroll, #genes .scroll')]"
        ".filter((each) => each.scrollWidth > each.clientWidth + 1).map((each) => each.firstElementChild.id)"
    )
    assert scrolled == []
    # The boxes cover the whole of their frame.
    covered, whole = page.run(
        "const area = (each) => each.getBoundingClientRect().width * each.getBoundingClientRect().height;"
        "const boxes = [...document.querySelectorAll('#facts div')];"
        "return [boxes.map(area).reduce((a, b) => a + b), area(document.getElementById('facts'))]"
    )
    assert covered > 0.97 * whole


@pytest.mark.parametrize("size", [NARROW, (768, 1024), WIDE], ids=["390", "768", "1280"])
def test_nothing_is_wider_than_the_window(open_page, size):
    page = open_page(size)
    assert page.run("return document.documentElement.scrollWidth") <= size[0]
    outside = page.run(
        "return [...document.querySelectorAll('header *, #verdict *, #facts *, .controls *, canvas, svg text')]"
        ".filter((each) => !each.closest('.scroll') && each.getClientRects().length && !each.matches('.skip'))"
        ".map((each) => [each.getBoundingClientRect(), each.outerHTML.slice(0, 120)])"
        ".filter(([box]) => box.left < -1 || box.right > innerWidth + 1)"
    )
    assert outside == []


def test_a_screen_of_maps_alone_fits_the_window(open_page, tmp_path):
    adata = sh.datasets.screen_planted(n_conditions=6, n_cells=30)
    sh.tl.hycnn_screen(adata, "control", groupby="condition", n_pcs=3, potential="gaussian", predict=False)
    path = sh.pl.report(adata, tmp_path / "screen.html", "hycnn_screen", groupby="cell_type")
    # The message on what is not stored names long keys.
    assert open_page(NARROW, path=path).run("return document.documentElement.scrollWidth") <= NARROW[0]
    width, room = open_page(WIDE, path=path).run(
        "const box = document.querySelector('.scroll.index'); return [box.scrollWidth, box.clientWidth]"
    )
    assert width <= room


def test_the_map_is_drawn_again_for_another_width(open_page):
    page = open_page(WIDE)
    width = page.run("return document.getElementById('map').width")
    metrics = {"width": 600, "height": 800, "deviceScaleFactor": 1, "mobile": False}
    page.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    page.driver.execute_async_script("setTimeout(arguments[0], 400)")
    assert page.run("return document.getElementById('map').width") < width
