#!/usr/bin/env bash
#
# Fails if a generated file differs from what its source generates, and leaves
# the new content in place. It compares files, not commits, so that it tells the
# same with and without uncommitted work.

set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

generated=(api/v1alpha1/zz_generated.deepcopy.go config/crd/bases docs/reference/api.md docs/cli)

before="$(mktemp -d)"
trap 'rm -rf "$before"' EXIT
for path in "${generated[@]}"; do
	mkdir -p "$before/$(dirname "$path")"
	if [[ -e "$path" ]]; then
		cp -R "$path" "$before/$path"
	fi
done

"${MAKE:-make}" --no-print-directory generate manifests docs

stale=0
for path in "${generated[@]}"; do
	diff -ruN "$before/$path" "$path" || stale=1
done
if ((stale)); then
	echo "generated files were stale; they are current now: review and commit them" >&2
	exit 1
fi
