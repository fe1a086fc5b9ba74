"""Memory and time of reading a large corpus: JSON lines and FASTA, made on the fly.

    python ci/bench_corpus.py DIR --gigabytes 5

Each is read once from end to end in a process of its own; fails where one takes 500 MB or more.
Needs so much room in DIR for one file at a time.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

MOST_MB = 500
KINDS = {"jsonl": "text", "fa": "dna", "fasta": "protein"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--gigabytes", type=float, default=5.0)
    parser.add_argument("--format", choices=KINDS, action="append")
    parser.add_argument("--read", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.read:
        read(given.read)
        return
    failed = False
    for form in given.format or KINDS:
        path = given.folder / f"large.{form}"
        write(path, int(given.gigabytes * 1e9))
        try:
            command = [sys.executable, __file__, str(given.folder), "--read", str(path)]
            found = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
        finally:
            path.unlink()
        print(
            f"{form}: {given.gigabytes} GB", *(f"{k} {v:,}" for k, v in found.items()), flush=True
        )
        failed |= found["MB"] >= MOST_MB
    sys.exit(failed)


def read(path: Path) -> None:
    """Reads the corpus once, and prints what it took."""
    from zoo.corpora import file_corpus

    start = time.monotonic()
    corpus = file_corpus(path, KINDS[path.suffix[1:]])
    assert corpus.fingerprint()
    opened = time.monotonic() - start
    examples = sum(1 for _ in corpus.examples(seed=0))
    seconds = round(time.monotonic() - start)
    print(
        json.dumps(
            {
                "MB": peak_mb(),
                "examples": examples,
                "seconds": seconds,
                "seconds to open and fingerprint": round(opened, 3),
            }
        )
    )


def peak_mb() -> int:
    """The most that was resident in this process (`ru_maxrss` may be that of its parent)."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    (line,) = (line for line in status.splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) // 1024


def write(path: Path, size: int) -> None:
    """Writes so many bytes; a block of records is repeated under new names."""
    with path.open("wb") as file:
        for block in blocks(path.suffix):
            file.write(block)
            if file.tell() >= size:
                return


def blocks(suffix: str) -> Iterator[bytes]:
    """Records in blocks of some megabytes, without end."""
    random = np.random.default_rng(0)
    letters = "ACGT" if suffix == ".fa" else "ACDEFGHIKLMNPQRSTVWY"
    text = "".join(random.choice(list(letters), 1 << 21))
    number = 0
    while True:
        number += 1
        if suffix == ".jsonl":
            rows = (text[i : i + 2000] for i in range(0, len(text), 2000))
            yield "".join(json.dumps({"text": row}) + "\n" for row in rows).encode()
            continue
        # One long chromosome in a hundred blocks, or many proteins.
        width = len(text) if suffix == ".fa" else 300
        named = suffix == ".fasta" or number % 100 == 1
        rows = (text[i : i + width] for i in range(0, len(text), width))
        lines = ("\n".join(row[i : i + 80] for i in range(0, len(row), 80)) for row in rows)
        yield "".join((f">s{number}\n" if named else "") + line + "\n" for line in lines).encode()


if __name__ == "__main__":
    main()
