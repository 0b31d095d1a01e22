# A static binary on an empty image: no shell, no libc, no certificates of its own.
#
#   docker build -t kafka-sidecar .
#   docker run --rm kafka-sidecar --help

FROM rust:1.95-alpine AS build
# zstd and mimalloc are compiled from C.
RUN apk add --no-cache musl-dev gcc make
WORKDIR /build
COPY . .
RUN cargo build --locked --profile dist -p kafka-sidecar \
 && cp target/dist/kafka-sidecar /kafka-sidecar \
 && mkdir -p /root-of-image/log /root-of-image/config

FROM scratch
COPY --from=build /kafka-sidecar /kafka-sidecar
# Where audit files go unless auditFile says otherwise; everything else may be read-only.
COPY --from=build --chown=65532:65532 /root-of-image/log /log
# Configuration files are mounted here; none is needed. The health check reads the same ones.
COPY --from=build /root-of-image/config /config
ENV LIGHT_4J_CONFIG_DIR=/config
USER 65532:65532
# 8080: the backend's side, loopback unless server.ip says otherwise (containers of one pod share it). 9404: health and metrics.
EXPOSE 8080 9404
HEALTHCHECK --interval=10s --timeout=4s --start-period=5s --retries=3 CMD ["/kafka-sidecar", "healthcheck"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["/kafka-sidecar"]
