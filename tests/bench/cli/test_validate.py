"""`bench validate`: what is no record is left alone, and what is a broken one is found."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.records import make_grid, write_records

Bench = Callable[..., tuple[int, str, str]]


def make_folder(folder: Path) -> list[Path]:
    """A run and other files of this program and of others below `folder`: the run's records."""
    paths = write_records(folder / "runs", make_grid(layers=(0,)))
    others = {
        "runs/saes/0123456789abcdef0123/sae.json": {"version": 1, "n": 64},
        "runs/leaderboards/figures/index.json": {"a.svg": "b"},
        "converted/cfg.json": {"d_sae": 64},
        "list.json": [1],
    }
    for name, content in others.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(json.dumps(content), encoding="utf-8")
    (folder / "converted/broken.json").write_text("{", encoding="utf-8")
    return paths


def test_files_that_are_no_records_are_left_alone(bench: Bench, tmp_path: Path) -> None:
    count = len(make_folder(tmp_path))
    said = f"{count} good, 0 bad; 5 other JSON files left alone\n"
    assert bench("validate", ".") == (0, said, "")
    assert bench("validate", "runs") == (0, f"{count} good, 0 bad\n", "")
    code, _, err = bench("validate", "converted")
    assert code == 2
    assert err == "bench: nothing to check in converted: 2 other JSON files left alone\n"


@pytest.mark.parametrize("where", ["records", "elsewhere", "renamed"])
def test_a_broken_record_is_found_from_a_folder_above(
    bench: Bench, tmp_path: Path, where: str
) -> None:
    path = make_folder(tmp_path)[0]
    if where != "records":
        name = path.name if where == "elsewhere" else "mine.json"
        path = Path(shutil.copy(path, tmp_path / name))
    text = path.read_text(encoding="utf-8")
    # A record that cannot be read as JSON is known by its place or its name.
    broken = text.replace("tiny-a", "tiny-b") if where == "renamed" else text[:100]
    path.write_text(broken, encoding="utf-8")
    code, out, err = bench("validate", ".")
    assert code == 2
    assert "1 bad" in out
    assert path.name in err
    assert "Delete it and run again" in err


@pytest.mark.parametrize("name", ["runs/saes/0123456789abcdef0123/sae.json", "converted/cfg.json"])
def test_nobody_is_told_to_delete_what_is_no_record(
    bench: Bench, tmp_path: Path, name: str
) -> None:
    make_folder(tmp_path)
    code, _, err = bench("validate", name)
    assert code == 2
    assert f"{name} is no record: neither its place, its name nor a digest in it says so" in err
    assert "Delete" not in err
