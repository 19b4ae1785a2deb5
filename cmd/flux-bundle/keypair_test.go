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
	"path/filepath"
	"testing"

	. "github.com/onsi/gomega"
)

func TestAKeyPairIsMadeOnce(t *testing.T) {
	g := NewWithT(t)
	private, public := keyPair(t, "secret")
	info, err := os.Stat(private)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(info.Mode().Perm()).To(Equal(os.FileMode(0o600)))
	before := treeOf(t, filepath.Dir(private))
	g.Expect(before["cosign.key"]).To(ContainSubstring("ENCRYPTED SIGSTORE PRIVATE KEY"))
	g.Expect(before["cosign.pub"]).To(ContainSubstring("PUBLIC KEY"))

	prefix := filepath.Join(filepath.Dir(private), "cosign")
	again := environment{passwordVariable: "other"}.flux(t, "generate-key-pair", "--output-key-prefix", prefix)
	g.Expect(again.code).To(Equal(exitFailure))
	expectOneError(g, again, "cosign.key exists and is not overwritten")

	g.Expect(os.Remove(private)).To(Succeed())
	again = environment{passwordVariable: "other"}.flux(t, "keygen", "--output-key-prefix", prefix)
	g.Expect(again.code).To(Equal(exitFailure))
	g.Expect(private).NotTo(BeAnExistingFile())
	g.Expect(treeOf(t, filepath.Dir(public))).To(HaveKeyWithValue("cosign.pub", before["cosign.pub"]))
}

func TestAKeyPairWithoutAPassword(t *testing.T) {
	g := NewWithT(t)
	prefix := filepath.Join(t.TempDir(), "cosign")
	run := flux(t, "generate-key-pair", "--output-key-prefix", prefix)
	g.Expect(run.code).To(Equal(exitFailure))
	expectOneError(g, run, "set COSIGN_PASSWORD, or run on a terminal")
	g.Expect(prefix + ".key").NotTo(BeAnExistingFile())
}

func TestAKeyPairWhereNothingCanBeWritten(t *testing.T) {
	g := NewWithT(t)
	run := environment{passwordVariable: ""}.flux(t, "generate-key-pair", "--output-key-prefix", filepath.Join(t.TempDir(), "no/such/folder"))
	g.Expect(run.code).To(Equal(exitFailure))
	expectOneError(g, run, "no such file or directory")
}
