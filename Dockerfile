# The builder can be any image with Go and the certificates of the public
# authorities, of whatever distribution: the program is static.
ARG GO_IMAGE=golang:1.26
FROM ${GO_IMAGE} AS build
WORKDIR /src
# The modules first: they change less often than the code.
COPY go.mod go.sum ./
RUN go mod download
COPY cmd cmd
COPY pkg pkg
ARG VERSION=dev
RUN CGO_ENABLED=0 go build -trimpath -ldflags "-s -w -X main.version=${VERSION}" \
    -o /celery-hpa ./cmd/celery-hpa

# Nothing but the program: no shell, no package to keep up to date.
FROM scratch
LABEL org.opencontainers.image.title="celery-hpa" \
      org.opencontainers.image.source="https://github.com/celery-hpa/celery-hpa" \
      org.opencontainers.image.licenses="Apache-2.0"
# For brokers whose certificate a public authority has signed.
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build /celery-hpa /celery-hpa
# By number: that is how Kubernetes sees that it is not root.
USER 65532:65532
EXPOSE 6443
ENTRYPOINT ["/celery-hpa"]
