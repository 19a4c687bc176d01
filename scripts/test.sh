#!/bin/sh
# All tiers of tests: unit, tools (real dpkg, apt, pip, gpgv, lintian), vm (real qemu). Arguments go to vitest.
set -eu
cd "$(dirname -- "$0")/.."
exec node_modules/.bin/node node_modules/vitest/vitest.mjs run "$@"
