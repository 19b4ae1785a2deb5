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
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"os"
	"path/filepath"
	"regexp"
	"testing"

	. "github.com/onsi/gomega"
	"github.com/sigstore/cosign/v3/pkg/cosign"
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

// TestAKeyThatOthersRefuseIsWarnedOf signs with keys that cosign imports. What others
// make of them is held in test/e2e.
func TestAKeyThatOthersRefuseIsWarnedOf(t *testing.T) {
	for kind, words := range map[string][]string{
		"P-256":   nil,
		"RSA":     nil,
		"P-384":   {"a key on P-384", "source-controller refuses", "--signature-digest-algorithm=sha384", "generate-key-pair"},
		"P-521":   {"a key on P-521", "--signature-digest-algorithm=sha512"},
		"ED25519": {"of the kind ED25519: source-controller and cosign verify refuse what it signs"},
	} {
		t.Run(kind, func(t *testing.T) {
			g := NewWithT(t)
			key := fileOf(t, "cosign.key", importedKey(t, kind))
			run := environment{passwordVariable: "secret"}.flux(t, "-f", manifests(t), "-t", "example.com/org/app:v1", "-s", key, "--dry-run")
			g.Expect(run.code).To(Equal(exitOK), run.err)
			if words == nil {
				g.Expect(run.err).NotTo(ContainSubstring("warning: --sign-key"))
			}
			for _, word := range words {
				g.Expect(run.err).To(MatchRegexp("(?m)^warning: --sign-key .*" + regexp.QuoteMeta(word)))
			}
		})
	}
}

// importedKey makes a key of a kind, in the form of cosign.
func importedKey(t *testing.T, kind string) []byte {
	t.Helper()
	g := NewWithT(t)
	private, err := map[string]func() (crypto.Signer, error){
		"P-256":   func() (crypto.Signer, error) { return ecdsa.GenerateKey(elliptic.P256(), rand.Reader) },
		"P-384":   func() (crypto.Signer, error) { return ecdsa.GenerateKey(elliptic.P384(), rand.Reader) },
		"P-521":   func() (crypto.Signer, error) { return ecdsa.GenerateKey(elliptic.P521(), rand.Reader) },
		"RSA":     func() (crypto.Signer, error) { return rsa.GenerateKey(rand.Reader, 2048) },
		"ED25519": func() (crypto.Signer, error) { _, key, err := ed25519.GenerateKey(rand.Reader); return key, err },
	}[kind]()
	g.Expect(err).NotTo(HaveOccurred())
	der, err := x509.MarshalPKCS8PrivateKey(private)
	g.Expect(err).NotTo(HaveOccurred())
	path := fileOf(t, "key.pem", pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
	pair, err := cosign.ImportKeyPair(path, func(bool) ([]byte, error) { return []byte("secret"), nil })
	g.Expect(err).NotTo(HaveOccurred())
	return pair.PrivateBytes
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
