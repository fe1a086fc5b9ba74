"""What the static page's filters, columns and ticks leave, in a headless browser."""

from __future__ import annotations

from leaderboard.findings import headline, sentences
from leaderboard.groups import group_records
from leaderboard.settled import has_settled, settled_sentence, settled_words
from tests.leaderboard.page_browser import Browser, browser_only
from tests.leaderboard.page_records import make_records


@browser_only
def test_filters_narrow_both_tables(browser: Browser) -> None:
    browser.set("domain", "language")
    assert set(browser.column("models", "Domain")) == {"language"}
    assert set(browser.column("cells", "Model")) == {"tiny-a", "tiny-c"}
    browser.set("query", "NY-A")
    assert browser.column("models", "Model") == ["tiny-a"]
    browser.set("arm", "raw")
    assert set(browser.column("cells", "Arm")) == {"raw"}
    browser.click("#reset", "Reset")
    browser.set("data", "made")
    assert browser.run("return document.querySelectorAll('#models tbody th').length") == 0
    browser.set("data", "real")
    assert set(browser.column("models", "Data")) == {"real"}
    browser.set("state", "failed")
    assert browser.column("models", "Model") == browser.column("cells", "Model") == ["tiny-d"]
    # A model of two protocols is one model.
    assert "1 of 4 models, 1 of 21 cells" in browser.run("return document.body.innerText")


@browser_only
def test_the_findings_follow_the_filters_and_an_empty_result_says_so(browser: Browser) -> None:
    items = "return [...document.querySelectorAll('#findings li')].map(it => it.textContent)"
    every = [group for group in group_records(make_records()) if not group.setting.limited]
    for domain in ("language", "vision"):
        browser.set("domain", domain)
        members = [group for group in every if group.domain == domain]
        assert browser.run(items) == sentences(members, markdown=False, tell=headline) != []
    browser.set("query", "tiny-a")
    said = (
        "No model matches \N{LEFT DOUBLE QUOTATION MARK}tiny-a\N{RIGHT DOUBLE QUOTATION MARK}, "
        "domain vision. Clear filters"
    )
    assert browser.run(items) == [said]
    for table in ("models", "cells"):
        assert browser.run(f"return document.querySelector('#{table} tbody').textContent") == said
    browser.click("#models tbody button", "Clear filters")
    assert len(browser.column("models", "Model")) == 4
    assert browser.run(items) == sentences(every, markdown=False, tell=headline)
    # What another protocol has is not lost from sight.
    browser.set(
        "setting", browser.run("return document.querySelectorAll('#setting option')[1].value")
    )
    browser.set("query", "tiny-b")
    assert "under this protocol; under another one 1 does" in browser.run(items)[0]


@browser_only
def test_an_arm_shows_its_own_columns_models_and_points_alone(browser: Browser) -> None:
    heads = "return [...document.querySelectorAll('#models thead th')].map(th => th.textContent)"
    browser.set("arm", "centered")
    named = [head for head in browser.run(heads) if head.endswith((" raw", " centered"))]
    assert named
    assert all(head.endswith(" centered") for head in named)
    assert "Why dead" not in browser.run(heads)  # of the raw arm
    assert "gamma" in browser.run(heads)
    assert browser.run("return document.querySelector('#chart .expected')") is None
    assert "centered" in browser.run("return document.getElementById('chart-title').textContent")
    assert set(browser.column("cells", "Arm")) == {"centered"}
    # The model that was run raw alone has nothing to say of another arm.
    assert "tiny-d" not in browser.column("models", "Model")


@browser_only
def test_a_death_that_had_not_settled_is_marked_with_words(browser: Browser) -> None:
    browser.click("#cells thead button", "Model")
    every = [group for group in group_records(make_records()) if not group.setting.limited]
    for arm in ("raw", "centered"):
        expected = {group.label: settled_words(group.records_of(arm)) for group in every}
        found = browser.run(
            "const place = [...document.querySelectorAll('#models thead th')]"
            ".findIndex(th => th.textContent === arguments[0]);"
            "const mark = row => row.children[place].querySelector('[role=img]')?.ariaLabel || '';"
            "return Object.fromEntries([...document.querySelectorAll('#models tbody tr')].map("
            "row => [row.querySelector('th').textContent, mark(row).replace(/:$/, '')]))",
            f"Dead at end % {arm}",
        )
        assert found == expected
    assert any(expected.values())
    marks = "return document.querySelectorAll('#cells [role=img]').length"
    cells = [record for group in every for record in group.records]
    assert browser.run(marks) == [has_settled(record) for record in cells].count(False) > 0
    said = settled_sentence(every).replace(": ", " of these models: ")
    assert browser.run("return document.getElementById('settled').textContent").startswith(said)


@browser_only
def test_protocols_are_apart(browser: Browser) -> None:
    names = browser.run("return [...document.querySelectorAll('#setting option')].map(o => o.text)")
    assert len(names) == 2
    assert "LIMITED to 100 tokens" in names[1]
    key = browser.run("return document.querySelectorAll('#setting option')[1].value")
    browser.set("setting", key)
    assert browser.column("models", "Model") == ["tiny-a"]
    assert len(browser.column("cells", "Model")) == 2


@browser_only
def test_columns_are_put_away_and_models_compared_and_a_link_keeps_both(browser: Browser) -> None:
    heads = "return [...document.querySelectorAll('#models thead th')].map(th => th.textContent)"
    assert "gamma" in browser.run(heads)
    assert "Missing" in browser.run(heads)
    browser.click("#choices label", "gamma")
    assert "gamma" not in browser.run(heads)
    boxes = "document.querySelectorAll('#models tbody input')"
    # They are in sight, whatever the table's width.
    right = f"return {boxes}[0].getBoundingClientRect().right"
    assert browser.run(right) < 100
    browser.run(f"{boxes}[0].click()")
    assert "tick another" in browser.run("return document.getElementById('ticked').textContent")
    browser.run(f"{boxes}[1].click()")
    browser.click("#to-comparison", "See the comparison of 2 models")
    assert browser.run("return document.activeElement.id") == "comparison-title"
    table = "return document.querySelector('#comparison table')?.rows[0].cells.length"
    assert browser.run(table) == 3
    fragment = browser.fragment
    browser.open("#" + fragment)
    assert browser.run(table) == 3
    assert "gamma" not in browser.run(heads)
    for place in (2, 3):
        browser.run(f"{boxes}[{place}].click()")
    assert browser.run(table) == 5
