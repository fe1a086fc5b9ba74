#!/usr/bin/env bash
# Proposes what build_boards.sh left in BUILT as a pull request. It may write to the repository, so
# it runs nothing but git and gh, and takes nothing but results/ and the README's block of them.
# Does nothing where nothing changed.
# Usage: propose.sh BUILT BRANCH
set -euo pipefail
built=$1 branch=$2

refuse() { echo "propose.sh: $1" >&2; exit 1; }
outside() { sed '/<!-- results:begin -->/,/<!-- results:end -->/d' "$1"; }

strange=$(find "$built" -mindepth 1 -maxdepth 1 ! -name results ! -name README.md)
[ -z "$strange" ] || refuse "$strange is not what is proposed"
strange=$(find "$built" ! -type f ! -type d)
[ -z "$strange" ] || refuse "$strange is neither a file nor a folder"
[ "$(outside "$built/README.md")" = "$(outside README.md)" ] || refuse "README.md differs elsewhere"
rm -rf results
cp -R "$built/results" "$built/README.md" .
git switch -q -c "$branch"
git add results README.md
removed=$(git diff --cached --name-only --diff-filter=D -- results/records)
[ -z "$removed" ] || refuse "$removed was removed"
if git diff --cached --quiet; then
    echo "nothing new"
    exit 0
fi
git -c user.name="github-actions[bot]" \
    -c user.email="41898282+github-actions[bot]@users.noreply.github.com" \
    commit -q -m "Results: $(git diff --cached --name-only -- results/records | wc -l) records"
git push -q origin "$branch"
gh pr create --head "$branch" --title "New results" --body "Records of a measuring run, and the boards made from them."
