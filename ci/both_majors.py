"""The adapters under both majors of transformers: the same tests, and the same activations.

    python ci/both_majors.py [--work DIR] [VERSION ...]

Makes one environment per version of transformers (by default the pinned 4 and the newest 5) from
this environment's Python, runs the adapters' tests in each, has each write the activations of the
same tiny checkpoints, and compares them. Prints one line per checkpoint: `equal` bit for bit, or
the largest difference relative to the activations' norm. Exit code 1 where a test fails or a
difference is above 1e-4.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PINNED_4, NEWEST_5 = "4.48.1", "5.23.0"
TESTS = "tests/adapters"
TOLERANCE = 1e-4
# What follows the version of transformers: its constraints are left out beside another version.
FOLLOWS = ("transformers", "tokenizers", "huggingface_hub", "hf-xet", "enformer-pytorch")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("versions", nargs="*", default=[PINNED_4, NEWEST_5])
    parser.add_argument("--work", type=Path, help="where environments are made, and kept")
    parser.add_argument("--python", type=Path, action="append", help="ready environments instead")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        work = options.work or Path(scratch)
        pythons = options.python or [environment(work, v) for v in options.versions]
        failed = [python for python in pythons if not tested(python)]
        made = Path(scratch) / "checkpoints"
        run(pythons[0], "-m", "ci.same_activations", "make", made)
        for number, python in enumerate(pythons):
            run(
                python, "-m", "ci.same_activations", "measure", made, made / f"{number}.safetensors"
            )
        worst = compared(pythons, made)
    return 1 if failed or worst > TOLERANCE else 0


def environment(work: Path, version: str) -> Path:
    """The Python of an environment with that version of transformers; made where it is not."""
    folder = work / f"transformers-{version}"
    python = folder / "bin" / "python"
    if not python.exists():
        pinned = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
        kept = [line for line in pinned if not line.startswith(tuple(f"{n}==" for n in FOLLOWS))]
        work.mkdir(parents=True, exist_ok=True)
        constraints = work / f"constraints-{version}.txt"
        constraints.write_text("\n".join([*kept, f"transformers=={version}"]), encoding="utf-8")
        run(Path(sys.executable), "-m", "venv", folder)
        wanted = (f"{ROOT}[test]", "enformer-pytorch<=0.8.11")
        run(python, "-m", "pip", "install", "-q", "-c", constraints, *wanted)
    return python


def run(python: Path, *arguments: object) -> None:
    subprocess.run([python, *map(str, arguments)], cwd=ROOT, check=True)


def tested(python: Path) -> bool:
    done = subprocess.run([python, "-m", "pytest", "-p", "no:cacheprovider", TESTS], cwd=ROOT)
    return done.returncode == 0


def compared(pythons: list[Path], made: Path) -> float:
    """Prints how the first environment's activations compare with each other one's."""
    worst = 0.0
    for number in range(1, len(pythons)):
        done = subprocess.run(
            [
                *(pythons[0], "-m", "ci.same_activations", "compare"),
                *(made / "0.safetensors", made / f"{number}.safetensors"),
            ],
            cwd=ROOT,
            check=True,
            capture_output=True,
            text=True,
        )
        print(done.stdout, end="", flush=True)
        worst = max(worst, float(done.stdout.split()[-1]))
    return worst


if __name__ == "__main__":
    sys.exit(main())
