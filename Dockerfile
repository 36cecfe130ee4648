# Fanwire's image: one static program on nothing else. No shell, no user but its own, nothing that has to be written to.
#
#     docker build -t fanwire .
#     docker buildx build --platform linux/amd64,linux/arm64 -t REGISTRY/fanwire:0.1.0 --push .
#
# `make test-ship` runs this very file, with a base of its own instead of the first line.

FROM rust:1.95-bookworm AS build
WORKDIR /src
COPY . .
# jemalloc takes the size of a page from the machine that builds it: kernels for arm64 have pages of 4, 16 or 64 KiB, and it
# bears smaller ones than it was told of, but no larger.
RUN if [ "$(uname -m)" = aarch64 ]; then export JEMALLOC_SYS_WITH_LG_PAGE=16; fi; \
    cargo rustc --release --locked --package fanwire --bin fanwire -- -C target-feature=+crt-static \
    && strip -o fanwire target/release/fanwire \
    && install -D --target-directory=/image/usr/bin fanwire \
    && install -D --mode=644 --target-directory=/image/etc/ssl/certs /etc/ssl/certs/ca-certificates.crt \
    && install -D --mode=644 --target-directory=/image/usr/share/doc/fanwire README.md LICENSE-APACHE LICENSE-MIT \
    && cp -R deploy/image/etc /image/

FROM scratch
COPY --from=build /image/ /
ENV PATH=/usr/bin FANWIRE_CONFIG=/etc/fanwire/config.json
# Nobody's, so that whoever demands a number (runAsNonRoot) has one.
USER 65532:65532
EXPOSE 6001 9601
HEALTHCHECK --interval=10s --timeout=5s --start-period=10s --retries=3 CMD ["/usr/bin/fanwire", "health"]
ENTRYPOINT ["/usr/bin/fanwire"]
