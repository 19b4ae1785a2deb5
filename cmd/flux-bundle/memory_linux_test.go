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
	"crypto/rand"
	"fmt"
	"io"
	"log"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/registry"
	. "github.com/onsi/gomega"
)

// peak pushes a folder in a process of its own and returns the most memory that
// the process ever had, in bytes.
func peak(t *testing.T, dir, ref string) int64 {
	t.Helper()
	g := NewWithT(t)
	command := exec.CommandContext(t.Context(), os.Args[0])
	command.Env = append(os.Environ(), childVariable+"="+strings.Join([]string{"-f", dir, "-t", ref}, "\n"))
	var said strings.Builder
	command.Stderr = &said
	out, err := command.Output()
	g.Expect(err).NotTo(HaveOccurred(), said.String())
	kib, err := strconv.ParseInt(strings.TrimSpace(string(out)), 10, 64)
	g.Expect(err).NotTo(HaveOccurred())
	return kib << 10
}

func TestMemoryDoesNotDependOnTheFolder(t *testing.T) {
	g := NewWithT(t)
	server := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	defer server.Close()
	ref := server.Listener.Addr().String() + "/org/app:v1"

	dir := manifests(t)
	small := peak(t, dir, ref)
	const (
		files, size = 50, 4 << 20 // 200 MiB
		allowed     = 64 << 20    // what the garbage collector leaves on a busy machine
	)
	content := make([]byte, size)
	for i := range files {
		_, _ = rand.Read(content) // never fails
		g.Expect(os.WriteFile(filepath.Join(dir, fmt.Sprintf("%d.bin", i)), content, 0o600)).To(Succeed())
	}
	large := peak(t, dir, ref)
	t.Logf("a small folder needs %d MiB, one of 200 MiB %d MiB", small>>20, large>>20)
	g.Expect(large - small).To(BeNumerically("<", allowed))
}
