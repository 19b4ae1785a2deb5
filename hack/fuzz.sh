#!/usr/bin/env bash
#
# Runs every fuzz target of the module, one after the other.
# Usage: hack/fuzz.sh [time for each target, such as 30s]

set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

fuzztime="${1:-30s}"

# go test -fuzz takes one package and one target at a time, and listing targets
# compiles the package, so packages without one are left out first.
packages="$(grep -rlE '^func Fuzz[A-Z_]' --include='*_test.go' . | xargs -r -n1 dirname | sort -u)"
for package in $packages; do
	targets="$(go test -list '^Fuzz' "$package" | grep '^Fuzz')"
	for target in $targets; do
		echo "fuzzing $package $target for $fuzztime"
		# Inputs that only reach new code are not made smaller: where the code runs in
		# several goroutines, that takes a minute for each, and nothing new is tried.
		go test -run '^$' -fuzz "^${target}\$" -fuzztime "$fuzztime" -fuzzminimizetime 1x "$package"
	done
done
