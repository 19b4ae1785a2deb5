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

package trust_test

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
	"testing"
	"time"

	. "github.com/onsi/gomega"
	"github.com/sigstore/cosign/v3/cmd/cosign/cli/options"
	"github.com/sigstore/cosign/v3/cmd/cosign/cli/sign"
	"github.com/sigstore/cosign/v3/pkg/cosign"

	"github.com/image-source/image-source-controller/pkg/trust"
)

// TestWhatTheCosignCommandSigns holds that what cosign's own code signs is
// accepted, in both formats, by registries with a list of referrers and without.
func TestWhatTheCosignCommandSigns(t *testing.T) {
	pair := cosignPair(t) // its password is meant to be slow to try
	for name, c := range map[string]struct {
		referrers, bundle bool
		format            trust.Format
	}{
		"a bundle by referrers":                     {true, true, trust.BundleReferrer},
		"a bundle by fallback tag":                  {false, true, trust.BundleTag},
		"a legacy signature":                        {false, false, trust.Legacy},
		"a legacy signature beside an idle API":     {true, false, trust.Legacy},
		"a legacy signature and then a bundle, too": {true, true, trust.BundleReferrer},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			i := push(t, serve(t, c.referrers), name)
			run := func(bundle bool) { i.cosignSign(t, pair, bundle) }
			demand := keys(map[string][]byte{"cosign.pub": pair.PublicBytes})
			_, err := i.verify(t, demand)
			expectDenied(g, err, trust.Rejected, "not signed")

			if c.format == trust.BundleReferrer {
				run(false)
			}
			run(c.bundle)
			verified, err := i.verify(t, demand)
			g.Expect(err).NotTo(HaveOccurred())
			g.Expect(verified.Rulings()[0].Signer().Format).To(Equal(c.format))
			if c.bundle {
				found, err := look(t, i)
				g.Expect(err).NotTo(HaveOccurred())
				g.Expect(found).To(ContainElement(HaveField("Key", verified.Rulings()[0].Signer().Key)), "what a bundle hints at is the key that verifies it")
			}
			_, err = i.verify(t, keys(map[string][]byte{"cosign.pub": newPair(t).pem(t)}))
			expectDenied(g, err, trust.Rejected, "by another key")
		})
	}
	expectNoStrangers(NewWithT(t))
}

// cosignSign signs an image as the command does.
func (i *image) cosignSign(t *testing.T, pair *cosign.KeysBytes, bundle bool) {
	t.Helper()
	g := NewWithT(t)
	file := filepath.Join(t.TempDir(), "cosign.key")
	g.Expect(os.WriteFile(file, pair.PrivateBytes, 0o600)).To(Succeed())
	g.Expect(sign.SignCmd(t.Context(), &options.RootOptions{Timeout: time.Minute},
		options.KeyOpts{KeyRef: file, PassFunc: cosignPassword, SkipConfirmation: true, NewBundleFormat: bundle},
		options.SignOptions{Upload: true, NewBundleFormat: bundle, TlogUpload: false}, []string{i.repository.Digest(i.digest.String()).String()})).To(Succeed())
}

// TestKeysThatTheCosignCommandImports holds that what cosign signs with keys of
// other kinds than its own is accepted: it has a hash for each.
func TestKeysThatTheCosignCommandImports(t *testing.T) {
	generate := func(curve elliptic.Curve) func() (crypto.Signer, error) {
		return func() (crypto.Signer, error) { return ecdsa.GenerateKey(curve, rand.Reader) }
	}
	for name, newKey := range map[string]func() (crypto.Signer, error){
		"P-384":   generate(elliptic.P384()),
		"P-521":   generate(elliptic.P521()),
		"RSA":     func() (crypto.Signer, error) { return rsa.GenerateKey(rand.Reader, 2048) },
		"Ed25519": func() (crypto.Signer, error) { _, key, err := ed25519.GenerateKey(rand.Reader); return key, err },
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			key, err := newKey()
			g.Expect(err).NotTo(HaveOccurred())
			encoded, err := x509.MarshalPKCS8PrivateKey(key)
			g.Expect(err).NotTo(HaveOccurred())
			file := filepath.Join(t.TempDir(), "private.pem")
			g.Expect(os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: encoded}), 0o600)).To(Succeed())
			pair, err := cosign.ImportKeyPair(file, cosignPassword)
			g.Expect(err).NotTo(HaveOccurred())

			for _, bundle := range []bool{true, false} {
				i := push(t, serve(t, true), name)
				i.cosignSign(t, pair, bundle)
				_, err = i.verify(t, keys(map[string][]byte{"cosign.pub": pair.PublicBytes}))
				g.Expect(err).NotTo(HaveOccurred())
				_, err = i.verify(t, keys(map[string][]byte{"cosign.pub": newPair(t).pem(t)}))
				expectDenied(g, err, trust.Rejected, "by another key")
			}
		})
	}
	expectNoStrangers(NewWithT(t))
}
