# syntax=docker/dockerfile:1

ARG GO_VERSION=1.26

# The compiler runs on the machine that builds and compiles for the target.
FROM --platform=$BUILDPLATFORM golang:${GO_VERSION} AS build
WORKDIR /src

COPY go.mod go.sum ./
RUN --mount=type=cache,target=/go/pkg/mod \
    go mod download

COPY main.go ./
COPY api/ api/
COPY controllers/ controllers/
COPY pkg/ pkg/

ENV GOCACHE=/cache
ARG VERSION=v0.0.0-dev
ARG TARGETOS
ARG TARGETARCH
RUN --mount=type=cache,target=/go/pkg/mod \
    --mount=type=cache,target=/cache \
    CGO_ENABLED=0 GOOS=${TARGETOS} GOARCH=${TARGETARCH} \
    go build -trimpath -ldflags "-s -w -X main.version=${VERSION}" -o /image-source-controller .

# CA certificates, time zones and the user 65532; no shell, no package manager.
FROM gcr.io/distroless/static-debian12:nonroot
COPY --from=build /image-source-controller /image-source-controller
USER 65532:65532
ENTRYPOINT ["/image-source-controller"]
