# shellcheck shell=bash disable=SC2034,SC2154
# uWebSockets in C++ speaking the protocol without any checks, on one thread: not a server that one could use but how
# far its kind of core goes. See uwebsockets/server.cpp; `presence` and batches of events are not in it.
#
# The sources that the crate libuwebsockets-sys 0.0.10 carries do as well as the newest.

install='
  git clone --recurse-submodules https://github.com/uNetworking/uWebSockets target/peers/uWebSockets
  make -C target/peers/uWebSockets/uSockets
  g++ -std=c++20 -O3 -flto -DLIBUS_NO_SSL -DUWS_NO_ZLIB -o target/peers/uwebsockets \
      -Itarget/peers/uWebSockets/src -Itarget/peers/uWebSockets/uSockets/src \
      loadtest/peers/uwebsockets/server.cpp target/peers/uWebSockets/uSockets/uSockets.a'
program=${UWEBSOCKETS:-target/peers/uwebsockets}
lacking='presence'

version() {
  echo 'uWebSockets without checks'
}

start() { # port, spare port
  exec "$program" "$1"
}
