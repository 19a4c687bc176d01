#!/bin/sh
# What the package holds beside sources: JavaScript in lib, the manual page and the completion made from the commands.
set -eu
cd "$(dirname -- "$0")/.."
node=node_modules/.bin/node
rm -rf lib
"$node" node_modules/typescript/bin/tsc -p tsconfig.emit.json
mkdir lib/share
"$node" lib/cli/main.js manual > lib/share/buildkit.1
"$node" lib/cli/main.js completion bash > lib/share/buildkit.bash
