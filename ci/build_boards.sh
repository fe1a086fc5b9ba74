#!/usr/bin/env bash
# Takes a run's records into results/, rebuilds what is made from them, checks it, and leaves
# results/ and README.md in BUILT. It runs installed packages, so it is given no rights.
# Usage: build_boards.sh RUN BUILT
set -euo pipefail
run=$1 built=$2

python ci/results.py take "$run"
python ci/readme.py
python ci/results.py check --base HEAD
mkdir -p "$built"
cp -R results README.md "$built"
