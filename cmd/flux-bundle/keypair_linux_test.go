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
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	. "github.com/onsi/gomega"
)

// TestAKeyPairOnAFullDisk makes a key pair in a process that may write no file, or
// files of a block only, which is less than a private key.
func TestAKeyPairOnAFullDisk(t *testing.T) {
	for _, blocks := range []string{"0", "1"} {
		t.Run(blocks, func(t *testing.T) {
			g := NewWithT(t)
			dir := t.TempDir()
			args := []string{"generate-key-pair", "--output-key-prefix", filepath.Join(dir, "cosign")}
			command := exec.CommandContext(t.Context(), "sh", "-c", "ulimit -f "+blocks+` && exec "$0"`, os.Args[0])
			command.Env = append(os.Environ(), childVariable+"="+strings.Join(args, "\n"), passwordVariable+"=secret")
			var said strings.Builder
			command.Stderr = &said
			g.Expect(command.Run()).NotTo(Succeed())
			g.Expect(said.String()).To(MatchRegexp(`^error: cannot write .*cosign\.key: file too large\n$`))
			g.Expect(modes(t, dir)).To(BeEmpty())
		})
	}
}
