#!/bin/sh
# Brings what a fresh clone needs: scripts/setup.sh [node|quickstart|test|bench]
#   node: only the node modules (with the Node 24 that runs everything); the others also install missing Debian packages.
set -eu
cd "$(dirname -- "$0")/.."
goal=${1:-quickstart}

if ! command -v npm >/dev/null 2>&1; then
  echo "error: npm is not installed" >&2
  echo "hint: apt-get install npm, or Node.js 20 or later from nodejs.org" >&2
  exit 3
fi
# npm writes node_modules/.package-lock.json last: older than the lock means another commit's modules or a cut installation
if [ ! -x node_modules/.bin/node ] || [ package-lock.json -nt node_modules/.package-lock.json ]; then
  echo "> npm ci" >&2
  npm ci --no-audit --no-fund --loglevel=error >&2
  touch node_modules/.package-lock.json
fi
[ "$goal" = node ] && exit 0
bin/buildkit doctor --for "$goal" --install >&2
