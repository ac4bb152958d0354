# Larder in a container: built in one stage, run in another without a compiler, by a user without rights.
#   docker build -t larder .
#   docker run --network host larder run --origin http://127.0.0.1:3000
FROM rust:1.95-slim-bookworm AS build
RUN apt-get update \
 && apt-get install -y --no-install-recommends cmake g++ make \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /build
COPY . .
RUN cargo build --release --locked && strip --strip-debug target/release/larder

FROM debian:bookworm-slim
RUN apt-get update \
 && apt-get install -y --no-install-recommends ca-certificates \
 && rm -rf /var/lib/apt/lists/* \
 && useradd --system --uid 10001 --no-create-home --shell /usr/sbin/nologin larder
COPY --from=build /build/target/release/larder /usr/local/bin/larder
USER 10001
EXPOSE 8080 9180
# SIGTERM drains: no new connections, the running requests end.
STOPSIGNAL SIGTERM
# Where commands find proxy.toml, if there is one.
WORKDIR /etc/larder
# The exec form: it asks the admin listener's /readyz and needs no shell. Without ./proxy.toml it asks where Larder listens by itself.
HEALTHCHECK --interval=10s --timeout=3s --start-period=5s CMD ["/usr/local/bin/larder", "health"]
ENTRYPOINT ["/usr/local/bin/larder"]
CMD ["run", "--config", "/etc/larder/proxy.toml"]
