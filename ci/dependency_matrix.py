"""The project under four sets of versions of what it depends on.

    python ci/dependency_matrix.py [--work DIR] [--resolve] [SET ...]

    pinned     constraints.txt: what the README installs
    oldest     the lower bounds in pyproject.toml
    resolved   what pip takes without constraints: what most users have
    newest     the newest of everything, transformers too, which a dependency may hold back

Makes an environment per set from this environment's Python. In each it runs the adapters' tests
and a short run of the embedded suite, and writes the activations of the same tiny checkpoints.
These are compared with the first set's. Prints one line per checkpoint: `equal` bit for bit, or the
largest difference relative to the activations' norm. Exit code 1 where an environment cannot be
made, a test or a cell fails, or a difference is above 1e-4. `--resolve` only asks pip whether the
versions go together, and installs nothing.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[1]
TESTS = "tests/adapters"
TOLERANCE = 1e-4

# Extras whose lower bounds are tried as well: those that read and draw, and bring no models.
EXTRAS = ("hdf5", "parquet", "plot")
# What the adapters' tests are run with; of these the newest will do.
TOOLS = ("hypothesis", "pytest", "pytest-xdist")


@dataclass(frozen=True)
class VersionSet:
    """Versions that are tried together.

    Attributes:
        constraints: the lines of a file for `pip install -c`.
        wanted: requirements beside the project's own.
    """

    constraints: Callable[[], list[str]]
    wanted: tuple[str, ...] = ()


def pinned() -> list[str]:
    """The lines of constraints.txt."""
    return (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()


def lower_bounds() -> list[str]:
    """Each direct dependency at the lowest version that pyproject.toml allows."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = (project["optional-dependencies"][name] for name in EXTRAS)
    return bounds_of([*project["dependencies"], *(text for extra in extras for text in extra)])


def bounds_of(requirements: Iterable[str]) -> list[str]:
    """A pin of each package's lower bound; of several bounds the highest.

    Raises:
        ValueError: a requirement has no lower bound.
    """
    lowest: dict[str, Version] = {}
    for text in requirements:
        requirement = Requirement(text)
        found = [Version(s.version) for s in requirement.specifier if s.operator in (">=", "==")]
        if not found:
            raise ValueError(f"{text} has no lower bound")
        name = canonicalize_name(requirement.name)
        lowest[name] = max([*found, lowest.get(name, found[0])])
    return [f"{name}=={version}" for name, version in sorted(lowest.items())]


SETS = {
    "pinned": VersionSet(pinned),
    "oldest": VersionSet(lower_bounds),
    "resolved": VersionSet(list),
    # enformer-pytorch pins transformers from 0.8.12 on, and runs under the newest all the same.
    "newest": VersionSet(list, ("transformers>=5", "enformer-pytorch<=0.8.11")),
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sets", nargs="*", metavar="SET", help=f"of {', '.join(SETS)}; all")
    parser.add_argument("--work", type=Path, help="where environments are made, and kept")
    parser.add_argument("--python", type=Path, action="append", help="ready environments instead")
    parser.add_argument("--resolve", action="store_true", help="ask pip only, install nothing")
    options = parser.parse_args()
    if unknown := set(options.sets) - set(SETS):
        parser.error(f"unknown set {min(unknown)!r}; known: {', '.join(SETS)}")
    with tempfile.TemporaryDirectory() as scratch:
        work = (options.work or Path(scratch)).resolve()
        if options.python:
            pythons = {str(python): python for python in options.python}
        else:
            names = options.sets or list(SETS)
            made = {name: environment(work, name, only_resolve=options.resolve) for name in names}
            pythons = {name: python for name, python in made.items() if python is not None}
        failed = len(pythons) < len(options.python or options.sets or SETS)
        if options.resolve:
            return int(failed)
        for name, python in pythons.items():
            for problem in problems_of(python, Path(scratch) / f"runs-{name.replace('/', '-')}"):
                print(f"{name}: {problem}", file=sys.stderr, flush=True)
                failed = True
        worst = compared(pythons, Path(scratch) / "checkpoints")
    return int(failed or worst > TOLERANCE)


def environment(work: Path, name: str, *, only_resolve: bool = False) -> Path | None:
    """The Python of the environment of a set, made where it is not; None where pip cannot."""
    folder = work / name
    python, complete = folder / "bin" / "python", folder / "complete"
    if complete.exists():
        return python
    work.mkdir(parents=True, exist_ok=True)
    constraints = work / f"constraints-{name}.txt"
    constraints.write_text("\n".join(SETS[name].constraints()) + "\n", encoding="utf-8")
    subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
    project = f"{ROOT}[{','.join(EXTRAS)}]"
    how = ["--quiet", "--dry-run"] if only_resolve else ["--quiet"]
    wanted = ["-c", str(constraints), "-e", project, *TOOLS, *SETS[name].wanted]
    if subprocess.run([str(python), "-m", "pip", "install", *how, *wanted]).returncode != 0:
        print(f"{name}: pip cannot install these versions together", file=sys.stderr, flush=True)
        return None
    if not only_resolve:
        complete.touch()
    return python


def problems_of(python: Path, output: Path) -> Iterator[str]:
    """What fails in an environment: the adapters' tests, or cells of a short run."""
    tests = [str(python), "-m", "pytest", "-p", "no:cacheprovider", TESTS]
    if subprocess.run(tests, cwd=ROOT).returncode != 0:
        yield f"{TESTS} fail"
    cells = [str(python), "-m", "bench", "run", "--layer", "0", "--limit", "2000"]
    if subprocess.run([*cells, "--output", str(output)], cwd=ROOT).returncode != 0:
        yield "cells of the embedded suite fail"


def compared(pythons: dict[str, Path], made: Path) -> float:
    """Prints how the first environment's activations compare with each other one's.

    Returns:
        The largest relative difference; infinite where an environment has none to compare.
    """
    worst = 0.0
    files: dict[str, Path] = {}
    for number, (name, python) in enumerate(pythons.items()):
        file = made / f"{number}.safetensors"
        try:
            if not files:
                activations(python, "make", made)
            activations(python, "measure", made, file)
        except subprocess.CalledProcessError:
            print(f"{name}: its activations cannot be measured", file=sys.stderr, flush=True)
            return float("inf")
        files[name] = file
    first = next(iter(files), "")
    for name in list(files)[1:]:
        print(f"{name}, compared with {first}:")
        said = activations(pythons[first], "compare", files[first], files[name])
        print(said, end="", flush=True)
        worst = max(worst, float(said.split()[-1]))
    return worst


def activations(python: Path, *arguments: object) -> str:
    """What `ci.same_activations` prints in an environment."""
    command = [str(python), "-m", "ci.same_activations", *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True)
    return done.stdout


if __name__ == "__main__":
    sys.exit(main())
