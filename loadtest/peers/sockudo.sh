# shellcheck shell=bash disable=SC2034,SC2154
# Sockudo, in Rust. Building it takes `protoc` with its standard files (Debian: protobuf-compiler, libprotobuf-dev). Its
# cluster adapters (--features redis,redis-cluster,nats) play no part on a single node: the default features it is.
#
# Its own limits would end every workload: an address may connect 20 times and call the API 100 times a minute. One is
# left: since 5.0 a reader that has a thousand messages waiting is closed. Room for them is taken as soon as it connects,
# so that a limit in bytes instead, which makes it room for ten thousand, costs a megabyte per socket.

install='cargo install sockudo --locked'
program=${SOCKUDO:-sockudo}

version() {
  "$program" --version
}

start() { # port, spare port
  exec env PORT="$1" METRICS_PORT="$2" METRICS_HOST=127.0.0.1 RUST_LOG=warn "$program" --config "$peers/sockudo.json"
}
