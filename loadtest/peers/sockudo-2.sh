# shellcheck shell=bash disable=SC2034,SC2154
# Sockudo as it was before its rewrite: the last 2.x costs less per delivery and per socket than what came after it.

install='cargo install sockudo --version 2.9.2 --locked --root target/peers/sockudo-2'
program=${SOCKUDO_2:-target/peers/sockudo-2/bin/sockudo}

version() {
  "$program" --version
}

start() { # port, spare port
  exec env PORT="$1" METRICS_PORT="$2" METRICS_HOST=127.0.0.1 RUST_LOG=warn "$program" --config "$peers/sockudo.json"
}
