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
	"os"
	"path/filepath"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	"github.com/sigstore/cosign/v3/cmd/cosign/cli/options"
	"github.com/sigstore/cosign/v3/cmd/cosign/cli/sign"

	"github.com/image-source/image-source-controller/pkg/trust"
)

// TestWhatTheCosignCommandSigns holds that what cosign's own code signs is
// accepted, in both formats, by registries with a list of referrers and without.
func TestWhatTheCosignCommandSigns(t *testing.T) {
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
			pair := cosignPair(t)
			file := filepath.Join(t.TempDir(), "cosign.key")
			g.Expect(os.WriteFile(file, pair.PrivateBytes, 0o600)).To(Succeed())
			run := func(bundle bool) {
				err := sign.SignCmd(t.Context(), &options.RootOptions{Timeout: time.Minute},
					options.KeyOpts{KeyRef: file, PassFunc: func(bool) ([]byte, error) { return []byte("secret"), nil }, SkipConfirmation: true, NewBundleFormat: bundle},
					options.SignOptions{Upload: true, NewBundleFormat: bundle, TlogUpload: false}, []string{i.repository.Digest(i.digest.String()).String()})
				g.Expect(err).NotTo(HaveOccurred())
			}
			demand := keys(map[string][]byte{"cosign.pub": pair.PublicBytes})
			_, err := i.verify(t, demand)
			expectDenied(g, err, trust.Rejected, "not signed")

			if c.format == trust.BundleReferrer {
				run(false)
			}
			run(c.bundle)
			verified, err := i.verify(t, demand)
			g.Expect(err).NotTo(HaveOccurred())
			g.Expect(verified.Rulings()[0].Signer.Format).To(Equal(c.format))
			_, err = i.verify(t, keys(map[string][]byte{"cosign.pub": cosignPair(t).PublicBytes}))
			expectDenied(g, err, trust.Rejected, "by another key")
		})
	}
	expectNoStrangers(NewWithT(t))
}
