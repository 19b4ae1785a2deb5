/*
Copyright 2026 The image-source-controller authors

Licensed under the Apache License, Version 2.0 (the "License");
you may not use this file except in compliance with the License.
You may obtain a copy of the License at

    http://www.apache.org/licenses/LICENSE-2.0

Unless required by applicable law or agreed to in writing, software
distributed under the License is distributed on an "AS IS" BASIS,
WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
See the License for the specific language governing permissions and
limitations under the License.
*/

package main

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"testing"

	"github.com/landlock-lsm/go-landlock/landlock"
)

// confinedVariable tells a process of the tests that it runs a single fuzz target,
// and holds the folder that the process may confine itself to.
const confinedVariable = "FLUX_BUNDLE_TEST_CONFINED"

// confinable returns the folder for confine, which is the temporary folder too, in
// a process that runs a fuzz target and nothing else. In any other process it
// returns nothing: it runs the seeds of the target in a process of their own and
// prepares the workers of go test -fuzz. The fuzz function must do nothing there.
func confinable(f *testing.F) (folder string) {
	f.Helper()
	if folder = os.Getenv(confinedVariable); folder != "" {
		return folder
	}
	folder = f.TempDir()
	f.Setenv(confinedVariable, folder)
	f.Setenv("TMPDIR", folder)
	seeds := exec.CommandContext(f.Context(), os.Args[0], "-test.run=^"+f.Name()+"$", "-test.count=1")
	if said, err := seeds.CombinedOutput(); err != nil {
		f.Fatalf("the seeds fail: %v\n%s", err, said)
	}
	return ""
}

// confine takes from this process, for good, the right to create, change, move or
// remove a file outside of the writable folders. The kernel answers such an attempt
// with EACCES (Landlock). Permissions and times of files that exist are not covered:
// a test has to compare them.
func confine(t testing.TB, writable ...string) {
	t.Helper()
	err := landlock.V3.RestrictPaths(landlock.RODirs("/"), landlock.RWFiles(os.DevNull), landlock.RWDirs(writable...).WithRefer())
	if err != nil {
		t.Fatalf("this process cannot be confined: %v", err)
	}
	if outside, err := os.MkdirTemp("/tmp", "outside"); !errors.Is(err, fs.ErrPermission) {
		t.Fatalf("this process is not confined: it made %q (%v)", outside, err)
	}
}
