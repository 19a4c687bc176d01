#!/bin/sh
# Side-by-side benchmarks; never part of the tests. scripts/bench.sh [NAME...] runs bench/NAME.ts, all without a name.
set -eu
cd "$(dirname -- "$0")/.."
[ $# -gt 0 ] || set -- $(ls bench/*.ts | sed 's|bench/||; s|\.ts$||' | grep -v '^support')
for name in "$@"; do
  echo "== $name"
  node_modules/.bin/node "bench/$name.ts"
done
