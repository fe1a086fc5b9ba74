from __future__ import annotations

import pytest

from leaderboard.text import Notes, between, escape, number, percent, plain, reaching, url_part


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (0.0123456, "0.0123"),
        (0.5, "0.500"),
        (4.5678, "4.57"),
        (45.678, "45.7"),
        (456.78, "457"),
        (999.4, "999"),
        (999.6, "1,000"),
        (45678.0, "45,678"),
        (-3.21987, "-3.22"),
        (1.234e-7, "1.23e-07"),
    ],
)
def test_numbers_have_three_significant_digits(value: float, text: str) -> None:
    assert number(value) == text


@pytest.mark.parametrize(
    ("tokens", "text"), [(1e15, ">1e9"), (7.08e9, ">1e9"), (1e9, "1,000,000,000"), (812.4, "812")]
)
def test_tokens_that_no_run_reads_are_bounded(tokens: float, text: str) -> None:
    assert reaching(tokens) == text


@pytest.mark.parametrize(
    ("share", "text"),
    [
        (0, "0"),
        (1, "100"),
        (0.5, "50.0"),
        (0.1234, "12.3"),
        (1 / 8192, "<0.1"),
        (8191 / 8192, ">99.9"),
        (-0.25, "-25.0"),
        (-1 / 8192, ">-0.1"),
        (1.5, "150.0"),
    ],
)
def test_only_exactly_none_is_0_percent_and_only_exactly_all_is_100(
    share: float, text: str
) -> None:
    assert percent(share) == text


def test_a_range_with_a_negative_end_is_written_without_a_dash() -> None:
    assert between("1", "2") == "1\N{EN DASH}2"
    assert between("-1", "2") == "-1 to 2"


def test_plain_text_is_one_visible_line() -> None:
    assert plain("a\n\t b\x1b[31mc\u202ed\x00e") == "a b\N{REPLACEMENT CHARACTER}[31mc�d�e"


def test_plain_text_is_cut() -> None:
    assert plain("x" * 400) == "x" * 299 + "…"
    assert plain("word " * 5, 10) == "word word…"


def test_markup_is_escaped() -> None:
    assert escape("a|b") == r"a\|b"
    assert escape("`*_[x](y)~$\\") == r"\`\*\_\[x\](y)\~\$\\"
    assert escape("<b>&") == "&lt;b&gt;&amp;"
    assert escape("<!-- gammabench:end -->") == "&lt;!-- gammabench:end --&gt;"


def test_addresses_are_not_made_links() -> None:
    text = escape("see https://example.org or www.example.org or @someone")
    assert "://" not in text
    assert "www." not in text
    assert "@" not in text


def test_a_path_part_holds_no_separator() -> None:
    assert url_part("../../x y") == "..%2F..%2Fx%20y"


def test_equal_footnotes_share_a_number() -> None:
    notes = Notes()
    assert [notes.ref("a"), notes.ref("b"), notes.ref("a")] == ["[^1]", "[^2]", "[^1]"]
    assert notes.render() == "[^1]: a\n[^2]: b"
