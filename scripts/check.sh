#!/bin/sh
# Everything that reads the code without running it.
set -eu
cd "$(dirname -- "$0")/.."
node=node_modules/.bin/node
echo '> tsc'; "$node" node_modules/typescript/bin/tsc --noEmit -p .
echo '> biome'; node_modules/.bin/biome check --error-on-warnings .
echo '> knip'; "$node" node_modules/knip/bin/knip.js
echo 'check passed'
