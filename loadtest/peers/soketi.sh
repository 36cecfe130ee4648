# shellcheck shell=bash disable=SC2034,SC2154
# Soketi, in TypeScript upon uWebSockets.js; one thread. What it is built upon comes as binaries for Node.js 14, 16 and
# 18, hence a Node.js of its own beside it, and from GitHub alone, hence the same version as others publish it on npm.
#
# Without a fitting binary that package goes on with a slow imitation in JavaScript: `version` says which it is.
# A reader that has a megabyte waiting misses messages without a word: uWebSockets drops them.

install='npm install --no-package-lock --prefix loadtest/peers/soketi'
program=${SOKETI:-loadtest/peers/soketi/node_modules/.bin/soketi}

# Its directory comes first, for the `node` in it.
use_its_node() {
  PATH="$(dirname "$(type -P "$program")"):$PATH"
}

version() {
  use_its_node
  # shellcheck disable=SC2016
  node -e '
      const load = require("module").createRequire(process.argv[1]);
      const uws = /native code/.test(load("uWebSockets.js").App) ? "native" : "IMITATED";
      console.log(`${load("../package.json").version}, Node.js ${process.versions.node}, uWebSockets ${uws}`);
  ' "$(readlink -f "$(type -P "$program")")"
}

start() { # port, spare port
  use_its_node
  export SOKETI_PORT=$1 SOKETI_METRICS_SERVER_PORT=$2 SOKETI_METRICS_HOST=127.0.0.1
  exec "$program" start --config="$peers/soketi/config.json"
}
