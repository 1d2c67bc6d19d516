# The Coordinator as an image: one binary, no shell, no root.
#
#   docker build -t coordinator .
#   docker run -v ./edge.toml:/etc/coordinator/edge.toml:ro -v coordinator:/var/lib/coordinator -p 8080:8080 coordinator
#
# TLS, SQLite and zstd are linked into the binary; only libc, libm and libgcc come from the image. A fully static binary
# (musl) was weighed and left: its allocator locks across threads and its resolver knows no search of /etc/nsswitch.conf,
# which costs more than the few megabytes of a libc.

# Builder and final image are the same Debian release, so that the binary finds the libc that it was linked with.
FROM rust:1.95-slim-bookworm AS builder

# aws-lc, SQLite and zstd are C; the slim image has no compiler headers of its own.
RUN apt-get update \
    && apt-get install -y --no-install-recommends gcc libc6-dev \
    && rm -rf /var/lib/apt/lists/*

WORKDIR /build

COPY . .

# The caches hold what cargo fetched and built before, dependencies above all. Our own roots are touched because cargo
# goes by time, and a copied file may be older than what the cache was built from.
RUN --mount=type=cache,target=/usr/local/cargo/registry,sharing=locked \
    --mount=type=cache,target=/build/target,sharing=locked \
    touch src/main.rs src/lib.rs \
    && cargo build --release --locked --bin coordinator \
    && cp target/release/coordinator /coordinator

# The data folder must belong to the user below before a volume is mounted over it: a volume inherits its owner.
RUN mkdir -p /empty/var/lib/coordinator /empty/etc/coordinator && chmod 0700 /empty/var/lib/coordinator

# Holds libc, libgcc, CA certificates and time zones; no shell and no package manager for an intruder to use.
FROM gcr.io/distroless/cc-debian12:nonroot

COPY --from=builder /coordinator /usr/bin/coordinator
COPY --from=builder --chown=65532:65532 /empty/ /

# Public plain and TLS, peers and Central, observe (`/health/*`, `/metrics`). The admin door stays on loopback, so it is
# not among them. Ports below 1024 need no privilege inside a container (net.ipv4.ip_unprivileged_port_start is 0 there).
EXPOSE 8080 8443 8444 9901

# No HEALTHCHECK: there is no shell to run one. Orchestrators ask /health/live and /health/ready on the observe door.

# By number, so that Kubernetes can verify runAsNonRoot.
USER 65532:65532

# SIGTERM (docker stop, Kubernetes) drains; it needs timeouts.drain plus drain_wait, 10 s by default.
STOPSIGNAL SIGTERM

ENTRYPOINT ["/usr/bin/coordinator"]
CMD ["run", "--config", "/etc/coordinator/edge.toml"]
