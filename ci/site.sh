#!/usr/bin/env bash
# Lays out what is published: the committed results, and a first page that leads to theirs.
# Usage: site.sh FOLDER
set -euo pipefail
cd "$(dirname "$0")/.."
site=$1

mkdir -p "$site"
cp -R results "$site/"
cat >"$site/index.html" <<'PAGE'
<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>gammabench</title>
<meta http-equiv="refresh" content="0; url=results/leaderboards/page/index.html">
<p><a href="results/leaderboards/page/index.html">gammabench: leaderboards</a></p>
PAGE
