#!/usr/bin/env bash
#
# Builds the archives of the command line for a release, their checksums, and the
# manifest by which the plugin catalogue of the Flux CLI knows it
# (cli.fluxcd.io/v1beta1), all in bin/release.
#
# usage: hack/release-cli.sh VERSION [OS/ARCH...]

set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

if (($# == 0)) || [[ ! "$1" =~ ^[0-9]+\.[0-9]+\.[0-9]+(-[0-9A-Za-z.-]+)?$ ]]; then
	echo "usage: $0 VERSION [OS/ARCH...], with a version such as 0.1.0" >&2
	exit 1
fi
version="$1"
shift
platforms=("$@")
if ((${#platforms[@]} == 0)); then
	platforms=(linux/amd64 linux/arm64 darwin/amd64 darwin/arm64 windows/amd64)
fi
go="${GO:-go}"
repository=https://github.com/image-source/image-source-controller
out=bin/release
rm -rf "$out"
mkdir -p "$out"

sha256() {
	if command -v sha256sum >/dev/null; then sha256sum "$1"; else shasum -a 256 "$1"; fi | cut -d ' ' -f 1
}

# Archives say nothing of who builds them, and when: the same commit gives the same checksums.
if [[ "$(tar --version)" == *GNU* ]]; then nobody=(--owner=0 --group=0 --numeric-owner); else nobody=(--uid 0 --gid 0 --numeric-owner); fi

cat >"$out/bundle.yaml" <<EOF
apiVersion: cli.fluxcd.io/v1beta1
kind: Plugin
name: bundle
description: Package, sign and push what Flux deploys; inspect, pull, verify and compare artifacts
homepage: $repository/blob/main/docs/guides/bundle.md
source: $repository
bin: flux-bundle
versions:
  - version: $version
    platforms:
EOF
for platform in "${platforms[@]}"; do
	os="${platform%/*}" arch="${platform#*/}" bin=flux-bundle
	[[ "$os" != windows ]] || bin+=.exe
	archive="flux-bundle_${version}_${os}_$arch.tar.gz"
	echo "building $archive"
	stage="$(mktemp -d)"
	CGO_ENABLED=0 GOOS="$os" GOARCH="$arch" "$go" build -trimpath -ldflags "-s -w -X main.version=v$version" -o "$stage/$bin" ./cmd/flux-bundle
	cp LICENSE "$stage"
	chmod 0755 "$stage/$bin"
	chmod 0644 "$stage/LICENSE"
	TZ=UTC touch -t 198001010000 "$stage/$bin" "$stage/LICENSE"
	tar -C "$stage" --format=ustar "${nobody[@]}" -cf - "$bin" LICENSE | gzip -9n >"$out/$archive"
	rm -rf "$stage"
	sum="$(sha256 "$out/$archive")"
	echo "$sum  $archive" >>"$out/checksums.txt"
	cat >>"$out/bundle.yaml" <<EOF
      - os: $os
        arch: $arch
        url: ${RELEASE_URL:-$repository/releases/download/v$version}/$archive
        checksum: sha256:$sum
EOF
done
echo "in $out: the archives, checksums.txt and bundle.yaml"
