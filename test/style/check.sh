#!/bin/sh
# What no linter checks: documentation of packages, size of files, left-over marks.
set -eu
cd "$(dirname "$0")/../.."
bad=0
files=$(git ls-files '*.go')
for dir in $(echo "$files" | xargs -n1 dirname | sort -u); do
  main=$(ls "$dir"/*.go | grep -v _test.go || true)
  [ -n "$main" ] || continue
  # shellcheck disable=SC2086
  if ! grep -lE '^// (Package|Command|The [a-z]+ command) ' $main >/dev/null; then
    echo "$dir: the package has no doc comment"
    bad=1
  fi
done
for f in $(echo "$files" | grep -v _test.go); do
  n=$(wc -l <"$f")
  if [ "$n" -gt 700 ]; then
    echo "$f: $n lines; is it one idea?"
    bad=1
  fi
done
if echo "$files" | xargs grep -nE '\b(TODO|FIXME|XXX|HACK)\b'; then
  echo "left-over marks: finish the work"
  bad=1
fi
exit $bad
