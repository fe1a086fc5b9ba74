"""Every command in the docs runs; the README's own numbers come from the committed records."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
import time
import webbrowser
from collections.abc import Callable
from pathlib import Path

import click
import numpy as np
import pytest

from bench.cli.main import COMMANDS as COMMAND_NAMES
from bench.cli.main import cli
from bench.records.store import RecordStore
from bench.sae.model import SAE
from ci.readme import at_other_sizes
from leaderboard.groups import group_records
from tests.records import make_grid, write_records
from zoo.install import install_line

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
CI = (ROOT / ".ci" / "run").read_text(encoding="utf-8")

# As the authors' table has its columns.
PAPER_TABLE = (
    "model,layer,hidden_dim,gamma,gamma_raw,effective_rank,dead_pct_init_topk,"
    "dead_pct_init_relu,dead_pct_init_centered,domain\n"
    "gpt2,1,64,0.5,0.4,30.5,2.5,1.25,0,language\n"
)

Bench = Callable[..., tuple[int, str, str]]

# Several of the docs' commands run the same models.
pytestmark = pytest.mark.usefixtures("predictions_computed_once")

# What commands set, and what they are tried with.
SHORT = {
    **dict.fromkeys(("n=1024", "n=1k"), "n=80"),
    **dict.fromkeys(("steps=200", "steps=64000"), "steps=5"),
    "batch=256": "batch=64",
}


# The README, and the pages that it leads to.
PAGES = {"README.md": README} | {
    f"docs/{path.name}": path.read_text(encoding="utf-8")
    for path in sorted((ROOT / "docs").glob("*.md"))
}


def shell_lines(text: str = README) -> list[str]:
    """The lines of a page's shell blocks, without comments."""
    blocks = re.findall(r"```sh\n(.*?)```", text, re.DOTALL)
    lines = [line.split("  #")[0].strip() for block in blocks for line in block.splitlines()]
    return [line for line in lines if line]


def help_of(name: str) -> str:
    """What a command's help says, examples included."""
    command = cli.get_command(click.Context(cli), name)
    assert command is not None
    return command.help or ""


def examples(name: str) -> list[str]:
    """The examples of a command's help."""
    return re.findall(rf"^ +(bench {name}\b.*)$", help_of(name), re.MULTILINE)


_PAGE_COMMANDS = [
    part.strip()
    for text in PAGES.values()
    for line in shell_lines(text)
    for part in line.split("&&")
    if part.split()[0] == "bench"
]
_HELP_COMMANDS = [line for name in COMMAND_NAMES for line in examples(name)]
COMMANDS = dict.fromkeys(
    tuple(shlex.split(line, comments=True)[1:]) for line in _PAGE_COMMANDS + _HELP_COMMANDS
)


def test_the_readme_begins_with_its_two_commands_and_ci_runs_both() -> None:
    first, second = shell_lines()[:2]
    for line in (first, second):
        for part in (part.strip() for part in line.split("&&")):
            quiet = part.replace("pip install", "pip install -q")
            assert part in CI or quiet in CI, f"CI does not run {part!r}"
    assert first.endswith("bench run")
    assert second.endswith("pytest -n auto")


@pytest.mark.parametrize("name", COMMAND_NAMES)
def test_a_commands_help_has_two_or_three_examples(name: str) -> None:
    assert len(examples(name)) in (2, 3), help_of(name)
    assert "Examples:" in help_of(name)


def interrupt(seconds: float) -> None:
    """A Ctrl-C."""
    raise KeyboardInterrupt


def prepare(name: str, options: list[str]) -> None:
    """The files that a command is about, in the working folder."""
    if name == "diagnose":
        np.save("activations.npy", np.random.default_rng(0).standard_normal((4096, 16)) + 3)
    if name == "convert" or "--sae" in options:
        SAE.init(16, 64, 4, seed=0).save(Path("sae"))
    if name == "card" or "hf-causal:my-model" in options:
        shutil.copytree(ROOT / "zoo" / "checkpoints" / "tiny-gpt2", "my-model")
    if name == "manifest" or "dump:acts" in options:
        Path("acts").mkdir()
        made = np.random.default_rng(0).standard_normal((8000, 16))
        np.save("acts/layer0.npy", made.astype(np.float32))
    if name in ("status", "report", "validate", "compare", "export", "compare-paper"):
        models = {"tiny-gpt2": "language"}
        write_records(Path("runs"), make_grid(models=models, layers=[0], arms=["raw", "centered"]))
    if name == "compare-paper":
        Path("init_stats.csv").write_text(PAPER_TABLE, encoding="utf-8")


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_bench_command_of_the_docs_runs(
    bench: Bench, tiny: list[str], command: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a protocol of a second, on a layer of each model; the offline suite may lack its
    packages, and must say so. No browser is opened, and a watch is interrupted."""
    name, *options = command
    monkeypatch.setattr(webbrowser, "open", lambda address: True)
    if "--watch" in options:
        monkeypatch.setattr(time, "sleep", interrupt)
    prepare(name, options)
    if name == "report" and "--check" in options:
        assert bench("report")[0] == 0
    if "dump:acts" in options:
        assert bench("manifest", "acts", "--domain", "protein")[0] == 0
    takes_cells = name in ("run", "plan")
    settings = [*tiny, "--set", "path=sparse"] if takes_cells else []
    if name == "run" and not {"--layer", "--sae"} & set(options):
        settings += ["--layer", "0"]
    # What the command itself sets comes last, and wins; but not at the cost of minutes.
    options = [SHORT.get(option, option) for option in options]
    code, out, err = bench(name, *settings, *options)
    if {"offline", "spliceai-1-skip"} & set(options) and code in (1, 2):
        assert install_line("offline") in err
    else:
        assert code == 0, out + err


def test_the_options_that_the_docs_name_exist() -> None:
    commands = [cli.get_command(click.Context(cli), name) for name in COMMAND_NAMES]
    params = [param for command in commands if command for param in command.params]
    known = {option for param in params for option in param.opts}
    # Within code only, and not the options of other programs.
    text = re.sub(r"\b(pip|aws) [^`\n]*", "", "\n".join(PAGES.values()))
    for option in ("--index-url", "--no-deps", "--num_processes"):
        text = text.replace(option, "")
    named = set(re.findall(r"(?<=[`\s])--[a-z][a-z-]*", text)) - {"--help"}
    assert named
    assert named <= known


@pytest.mark.skipif(
    not (ROOT / "results" / "records").is_dir(), reason="no committed results in this checkout"
)
def test_models_with_few_dead_have_a_row_and_no_sentence() -> None:
    records = (
        record
        for record in RecordStore(ROOT / "results")
        if record.spec.model == "all-minilm-l6-v2" and record.spec.protocol["n"] == 8192
    )
    ((_, sentence, table, settled),) = at_other_sizes([group_records(records)])
    assert sentence == ""
    assert "| all-minilm-l6-v2 " in table
    assert "4,000 of 256 tokens |" in table
    assert settled == "Death at the end had settled in 6 of 6 cells."


@pytest.mark.skipif(
    not (ROOT / "results" / "records").is_dir(), reason="no committed results in this checkout"
)
def test_the_readmes_findings_and_pictures_come_from_the_committed_records() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "ci" / "readme.py", "--check"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_relative_links_of_the_docs_lead_somewhere() -> None:
    for page in (*PAGES, "CONTRIBUTING.md"):
        text = (ROOT / page).read_text(encoding="utf-8")
        for target in re.findall(r"\]\((?!https?:)([^)#]+)[^)]*\)", text):
            there = (ROOT / page).parent / target
            assert there.exists(), f"{page} links to {target}"


def test_the_readme_is_a_screen_and_a_half_and_leads_to_every_page() -> None:
    before, _, rest = README.partition("<!-- results:begin -->")
    after = rest.partition("<!-- results:end -->")[2]
    assert len((before + after).splitlines()) < 75
    for page in PAGES:
        assert page == "README.md" or f"({page})" in README
