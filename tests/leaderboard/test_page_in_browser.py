"""The static page in a headless browser, opened from `file://`."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest

from bench.records.store import RecordStore
from leaderboard.findings import paragraph
from leaderboard.groups import group_records
from leaderboard.text import number, percent
from leaderboard.web.page import page_files
from tests.leaderboard.page_browser import Browser, browser_only
from tests.leaderboard.page_records import make_records
from tests.records import make_grid


@browser_only
def test_models_are_shown_by_gamma_and_sort_by_any_column(browser: Browser) -> None:
    assert browser.column("models", "Model")[-1] == "tiny-d"
    for title in ("gamma", "Born dead % raw"):
        if title != "gamma":
            browser.click("#models thead button", title)
        falling = [float(text.lstrip("<>")) for text in browser.column("models", title)[:-1]]
        assert falling == sorted(falling, reverse=True)
        browser.click("#models thead button", title)
        rising = [float(text.lstrip("<>")) for text in browser.column("models", title)[:-1]]
        assert rising == sorted(rising)
        # What has no number comes last either way.
        assert browser.column("models", title)[-1] == "\N{EM DASH}"
    browser.click("#models thead button", "Model")
    names = browser.column("models", "Model")
    assert names == sorted(names)
    order = "th[aria-sort=ascending], th[aria-sort=descending]"
    assert browser.run(f"return document.querySelectorAll('#models :is({order})').length") == 1


@browser_only
def test_the_page_writes_numbers_as_the_boards_do(browser: Browser) -> None:
    values = [0, 0.5, 1, -1, 0.00001, 0.99999, 0.123456, -0.25, 1.5, 123.456, 999.6, 45678.9, 1e-7]
    for function, expected in (("number", number), ("percent", percent)):
        shown = browser.run(f"return arguments[0].map({function})", values)
        normal = [re.sub(r"e([+-])0?(\d)$", r"e\g<1>\2", expected(value)) for value in values]
        assert shown == normal


@browser_only
def test_the_first_screen_says_what_was_found_and_its_points_open_models(browser: Browser) -> None:
    assert "version" in browser.run("return document.getElementById('meta').textContent")
    found = browser.run(
        "return [...document.querySelectorAll('#findings li')].map(i => i.textContent)"
    )
    assert found
    points = "return [...document.querySelectorAll('#chart a')].map(a => a.ariaLabel)"
    assert {text.split(",")[0] for text in browser.run(points)} == {"tiny-a", "tiny-b", "tiny-c"}
    assert (
        browser.run("return document.getElementById('chart').getBoundingClientRect().bottom") < 1000
    )
    browser.run("document.querySelector('#chart a').dispatchEvent(new Event('click'))")
    assert browser.run("return document.activeElement.id") == "profile-title"


def _data_of(page: Path) -> str:
    text = (page.parent / "data.js").read_text(encoding="utf-8")
    return text.removeprefix("const GAMMABENCH = ").removesuffix(";\n")


@browser_only
def test_the_bar_of_a_row_has_the_three_parts_of_its_death(browser: Browser) -> None:
    widths = browser.run(
        "return [...document.querySelectorAll('#models tbody tr')].map(row => ["
        "row.querySelector('th').textContent, ...[...row.querySelectorAll('.bar rect')].slice(1)"
        ".map(r => Number(r.getAttribute('width')))])"
    )
    data = json.loads(_data_of(browser.page))
    places = [i for i, each in enumerate(data["modelColumns"]) if each["title"].startswith("Due")]
    assert len(places) == 3
    shown = {name: parts for name, *parts in widths if parts}
    for model in data["models"]:
        parts = [model["values"][place] for place in places]
        if model["label"] in shown and model["setting"] == 0:
            assert shown[model["label"]] == pytest.approx([100 * max(0, each) for each in parts])


@browser_only
def test_cells_are_folded_and_a_phone_shows_death_first(browser: Browser) -> None:
    browser.driver.get("about:blank")
    browser.driver.get(browser.page.as_uri())
    assert not browser.run("return document.getElementById('cells-fold').open")
    browser.emulate("light", 390)
    heads = browser.run(
        "return [...document.querySelectorAll('#models thead th')].map(th => th.textContent)"
    )
    assert heads[:4] == ["Model", "Born dead % raw", "Why dead", "Dead at end % raw"]
    # The next number of death is in sight without scrolling, and names stay where they are.
    right = "return document.querySelectorAll('#models thead th')[3].getBoundingClientRect().right"
    assert browser.run(right) <= 390
    name = "return document.querySelector('#models tbody th').getBoundingClientRect().left"
    left = browser.run(name)
    # Names are whole.
    whole = "it => it.scrollWidth <= it.clientWidth"
    names = "[...document.querySelectorAll('#models tbody th')]"
    assert browser.run(f"return {names}.every({whole})")
    browser.run("document.getElementById('models-region').scrollLeft = 300")
    assert browser.run(name) == left
    assert browser.run("return document.getElementById('chart').scrollWidth") <= 390
    # The page itself does not scroll sideways, only the table in it.
    assert browser.run("return document.documentElement.scrollWidth") <= 390


@browser_only
def test_the_curves_of_a_layer_are_those_of_its_records(browser: Browser) -> None:
    browser.click("#models tbody button", "tiny-a")
    browser.set("curve-layer", "2")
    label = browser.run("return document.querySelector('.curves svg').ariaLabel")
    data = json.loads(_data_of(browser.page))
    arms, names = data["arms"], [model["label"] for model in data["models"]]
    cells = [c for c in data["cells"] if names[c[0]] == "tiny-a" and c[1] == 2 and c[8]]
    assert len(cells) == 2
    for cell in cells:
        for word, place in (("ReLU", 1), ("TopK", 2)):
            end = percent(cell[8][-1][place])
            assert f"{arms[cell[2]]} by {word}: {end} % at the end" in label


@browser_only
def test_a_model_opens_its_layers_and_every_point_leads_to_a_record(browser: Browser) -> None:
    browser.click("#models tbody button", "tiny-a")
    # It opens below the table, so the reader is led there.
    assert browser.run("return document.activeElement.id") == "profile-title"
    top = "return document.getElementById('profile').getBoundingClientRect().top"
    assert -1 <= browser.run(top) < 800
    (group,) = (
        group
        for group in group_records(make_records())
        if group.label == "tiny-a" and not group.setting.limited
    )
    told = browser.run("return document.getElementById('profile').textContent")
    assert paragraph(group, markdown=False) in told
    assert "Layers of tiny-a" in browser.run("return document.getElementById('profile').innerText")
    links = browser.run(
        "return [...document.querySelectorAll('#profile svg a')].map(a => a.href.baseVal)"
    )
    # Gamma once, death at init and at the end for two arms, in three layers.
    assert len(links) == 15
    folder = browser.page.parent
    for link in links:
        assert (folder / unquote(link)).resolve().is_file(), link
    assert set(browser.column("cells", "Model")) == {"tiny-a"}
    browser.click("#close", "Close")
    assert browser.run("return document.getElementById('profile').hidden")


@browser_only
def test_every_row_leads_to_its_record(browser: Browser, page_output: Path) -> None:
    links = browser.run("return [...document.querySelectorAll('#cells a')].map(a => a.href)")
    records = {path.resolve() for path in RecordStore(page_output).paths()}
    found = {Path(unquote(urlsplit(link).path)).resolve() for link in links}
    assert found <= records
    assert len(found) == 18
    pages = browser.run("return [...document.querySelectorAll('#models a')].map(a => a.href)")
    assert all(Path(unquote(urlsplit(page).path)).is_file() for page in pages)


@browser_only
def test_a_link_keeps_the_view(browser: Browser) -> None:
    browser.set("domain", "language")
    browser.click("#models thead button", "Dead at end % raw")
    browser.click("#models tbody button", "tiny-c")
    before = browser.run("return document.body.innerText")
    fragment = browser.fragment
    assert "domain=language" in fragment
    browser.open("#" + fragment)
    assert browser.run("return document.body.innerText") == before


@browser_only
def test_a_broken_address_opens_the_page_all_the_same(browser: Browser) -> None:
    browser.open("#setting=nope&model=%00&modelSort=99&cellSort=x&__proto__=1&state=other")
    assert "models" in browser.run("return document.getElementById('count').textContent")


@browser_only
def test_the_keyboard_sorts_and_opens(browser: Browser) -> None:
    from selenium.webdriver.common.keys import Keys

    head = browser.driver.find_element("css selector", "#models thead button")
    head.send_keys(Keys.ENTER)
    names = browser.column("models", "Model")
    assert names == sorted(names)
    # The focus is where it was, though the table is new.
    assert browser.run("return document.activeElement.textContent") == "Model"
    browser.driver.find_element("css selector", "#models tbody button").send_keys(Keys.SPACE)
    assert not browser.run("return document.getElementById('profile').hidden")


@browser_only
def test_controls_and_tables_have_names(browser: Browser) -> None:
    assert browser.run(
        "return [...document.querySelectorAll('select, input')]"
        ".every(it => it.labels.length || it.ariaLabel)"
    )
    assert browser.run("return [...document.querySelectorAll('table')].every(it => it.caption)")
    assert browser.run("return [...document.querySelectorAll('th')].every(it => it.scope)")
    assert browser.run("return document.documentElement.lang") == "en"


AXE = importlib.util.find_spec("axe_core_python")


@browser_only
@pytest.mark.skipif(AXE is None, reason="the package axe-core-python is not installed")
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1400, 390])
def test_axe_finds_nothing_to_mend(browser: Browser, scheme: str, width: int) -> None:
    """Roles, names, order of headings, contrast and the rest of axe's rules, with layers open."""
    assert AXE is not None
    assert AXE.submodule_search_locations is not None
    script = Path(AXE.submodule_search_locations[0]) / "axe.min.js"
    browser.emulate(scheme, width)
    browser.click("#models tbody button", "tiny-a")
    browser.run(script.read_text(encoding="utf-8"))
    found = browser.driver.execute_async_script(
        "const done = arguments[arguments.length - 1]; axe.run().then(done)"
    )
    assert len(found["passes"]) > 25
    assert "color-contrast" in {rule["id"] for rule in found["passes"]}
    violations = [(each["id"], [n["html"] for n in each["nodes"]]) for each in found["violations"]]
    assert violations == []
    # The contrast of what it cannot judge, such as drawn text, follows from the colours.
    assert {rule["id"] for rule in found["incomplete"]} <= {"color-contrast"}


@browser_only
def test_the_focus_goes_down_the_page(browser: Browser) -> None:
    from selenium.webdriver.common.keys import Keys

    browser.run("document.body.focus()")
    order = []
    for _ in range(10):
        browser.press(Keys.TAB)
        order.append(browser.run("return document.activeElement.id"))
    filters = ["setting", "domain", "data", "query", "arm", "state", "reset"]
    assert order[:8] == ["skip", *filters]
    # The points of the chart come next; the last of them leads on to the table.
    names = browser.run(
        "return [...document.querySelectorAll('a, button, input, select, summary, [tabindex]')]"
        ".map(it => it.id || (it.closest('#chart') ? 'point' : ''))"
    )
    points = [place for place, name in enumerate(names) if name == "point"]
    assert len(points) == 3
    assert names.index("reset") < points[0]
    links = "return [...document.querySelectorAll('#files a')].map(a => a.getAttribute('href'))"
    assert browser.run(links) == ["models.parquet", "cells.parquet"]
    assert points[-1] < names.index("models-region")


@browser_only
def test_the_skip_link_keeps_the_view(browser: Browser) -> None:
    browser.set("domain", "language")
    before = browser.fragment
    browser.run("document.getElementById('skip').click()")
    assert browser.run("return document.activeElement.id") == "models-region"
    assert browser.fragment == before
    assert set(browser.column("models", "Domain")) == {"language"}


@browser_only
def test_the_focus_stays_with_what_was_used(browser: Browser) -> None:
    """Though opening and closing a model's layers makes the tables anew."""
    from selenium.webdriver.common.keys import Keys

    focus = "return document.activeElement.textContent"
    browser.run("document.querySelector('#models tbody button').focus()")
    name = browser.run(focus)
    browser.press(Keys.ENTER)
    assert browser.run(focus).startswith(f"Layers of {name}")
    browser.run("document.getElementById('close').focus()")
    browser.press(Keys.ENTER)
    assert browser.run(focus) == name
    assert browser.run("return document.activeElement.ariaExpanded") == "false"


@browser_only
def test_hostile_text_is_shown_not_run(browser: Browser) -> None:
    browser.set("state", "failed")
    (reason,) = browser.column("cells", "Reason")
    assert reason.startswith("</script><script>document.title='owned'")
    assert browser.run("return document.title") == browser.title
    assert browser.run("return document.querySelectorAll('img').length") == 0


@browser_only
def test_of_many_cells_a_hundred_are_in_the_document(driver: Any, tmp_path: Path) -> None:
    models = [f"model-{i:02}" for i in range(26)]
    arms = ["raw", "raw+auxk", "centered", "whitened"]
    records = make_grid(models=models, layers=range(4), arms=arms, seeds=[0, 1, 2])
    folder = tmp_path / "page"
    folder.mkdir()
    for name, text in page_files(group_records(records)).items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    browser = Browser(driver, folder / "index.html")
    browser.open()
    assert "1248 of 1248 cells" in browser.run("return document.body.innerText")
    # Which is what keeps it quick: 5,000 cells take a second on a machine with nothing else to do.
    assert browser.run("return document.querySelectorAll('#cells tbody tr').length") == 100
    took = browser.run("return performance.getEntriesByType('navigation')[0].domComplete")
    print(f"complete after {took:.0f} ms")
    browser.click("#cells thead button", "FVU")
    falling = [float(text) for text in browser.column("cells", "FVU")]
    assert len(falling) == 100
    assert falling == sorted(falling, reverse=True)
