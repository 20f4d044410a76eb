#!/usr/bin/env bash
# A strict build of a site that is asked to be quiet: MkDocs passes what it refuses otherwise.
#
# Guess:     `strict: true` fails a build with a warning, whatever the build prints; --quiet is "silence warnings".
# Versions:  mkdocs 1.6.1.
# Behaviour: a link to a page that is not there fails `mkdocs build` and passes `mkdocs build --quiet`, exit code 0 and
#            nothing printed: strict mode counts the warnings that are logged, and --quiet sets the logger above them.
#            A check of links that is kept quiet in CI checks nothing.
# Seen:      exit codes 1 and 0.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check mkdocs==1.6.1
mkdir "$work/docs"
printf 'site_name: s\nstrict: true\n' > "$work/mkdocs.yml"
printf '# Start\n\n[gone](gone.md)\n' > "$work/docs/index.md"
cd "$work"
loud=0 quiet=0
venv/bin/mkdocs build > loud.log 2>&1 || loud=$?
venv/bin/mkdocs build --quiet || quiet=$?
echo "exit codes $loud and $quiet"
grep -q "gone.md" loud.log
[ "$loud" = 1 ] && [ "$quiet" = 0 ] || { echo "this finding is out of date"; exit 1; }
