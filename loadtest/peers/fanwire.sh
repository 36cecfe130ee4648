# shellcheck shell=bash disable=SC2034,SC2154
# Fanwire, from this repository.

install='cargo build --release'
program=${FANWIRE:-target/release/fanwire}

version() {
  "$program" --version
}

start() { # port, spare port
  exec env FANWIRE_SERVER__PORT="$1" FANWIRE_ADMIN__PORT="$2" FANWIRE_LOG__LEVEL=warn \
      "$program" --config "$peers/fanwire.json"
}
