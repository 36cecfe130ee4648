# shellcheck shell=bash disable=SC2034,SC2154
# Sockudo, in Rust. Building it takes `protoc` with its standard files (Debian: protobuf-compiler, libprotobuf-dev). Its
# cluster adapters (--features redis,redis-cluster,nats) play no part on a single node: the default features it is.
#
# Its own limits would end every workload: an address may connect 20 times and call the API 100 times a minute. A slow
# reader may have a thousand messages waiting before it is closed; here it is bytes, as many as Fanwire allows.

install='cargo install sockudo --locked'
program=${SOCKUDO:-sockudo}

version() {
  "$program" --version
}

start() { # port, spare port
  exec env PORT="$1" METRICS_PORT="$2" METRICS_HOST=127.0.0.1 RUST_LOG=warn "$program" --config "$peers/sockudo.json"
}
