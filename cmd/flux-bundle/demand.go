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
	"cmp"
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/spf13/cobra"

	"github.com/image-source/image-source-controller/pkg/trust"
)

// demandFlags say whose signature is wanted.
type demandFlags struct {
	// follow lets the files be behind a symbolic link.
	follow                       bool
	keys                         []string
	identity, identityExpression string
	issuer, issuerExpression     string
	trustedRoot                  string
	notationPolicy               string
	notationCertificates         []string
}

// bind adds the flags to a verb.
func (f *demandFlags) bind(cmd *cobra.Command) {
	fs := cmd.Flags()
	fs.StringArrayVar(&f.keys, "key", nil, "`file` of a public key that may have signed; may be given several times")
	fs.BoolVar(&f.follow, followFlag, false, followUsage)
	fs.StringVar(&f.identity, "certificate-identity", "", "`identity` that has to be in the certificate of a keyless signature")
	fs.StringVar(&f.identityExpression, "certificate-identity-regexp", "", "regular `expression` for that identity, which has to match all of it")
	fs.StringVar(&f.issuer, "certificate-oidc-issuer", "", "`issuer` of the OpenID token that has to be in that certificate")
	fs.StringVar(&f.issuerExpression, "certificate-oidc-issuer-regexp", "", "regular `expression` for that issuer, which has to match all of it")
	fs.StringVar(&f.trustedRoot, "trusted-root", "", "`file` with the authorities of a Sigstore of one's own (trusted_root.json)")
	fs.StringVar(&f.notationPolicy, "notation-trust-policy", "", "`file` of a trust policy of the Notary Project (trustpolicy.json)")
	fs.StringArrayVar(&f.notationCertificates, "notation-cert", nil, "`file` of certificates to trust in every trust store that the policy names; may be given several times")
}

// isSet tells whether anything is demanded.
func (f *demandFlags) isSet() bool {
	return len(f.keys)+len(f.notationCertificates) > 0 ||
		f.identity+f.identityExpression+f.issuer+f.issuerExpression+f.trustedRoot+f.notationPolicy != ""
}

// check refuses demands that contradict each other.
func (f *demandFlags) check() error {
	keyless := "--certificate-identity and --certificate-oidc-issuer"
	isKeyless := f.identity+f.identityExpression+f.issuer+f.issuerExpression != ""
	isNotation := f.notationPolicy != "" || len(f.notationCertificates) > 0
	switch {
	case f.identity != "" && f.identityExpression != "":
		return contradiction("--certificate-identity", "--certificate-identity-regexp")
	case f.issuer != "" && f.issuerExpression != "":
		return contradiction("--certificate-oidc-issuer", "--certificate-oidc-issuer-regexp")
	case len(f.keys) > 0 && isKeyless:
		return contradiction("--key", keyless)
	case len(f.keys) > 0 && isNotation:
		return contradiction("--key", "--notation-trust-policy")
	case isKeyless && isNotation:
		return contradiction(keyless, "--notation-trust-policy")
	case f.trustedRoot != "" && isNotation:
		return contradiction("--trusted-root", "--notation-trust-policy")
	}
	return nil
}

// authority returns the authority of the flags; nil when they demand nothing.
func (f *demandFlags) authority(ctx context.Context, a *app) (*trust.Authority, error) {
	if !f.isSet() {
		return nil, nil //nolint:nilnil // nobody judges
	}
	demand, err := await(ctx, f.demand) // a pipe in the place of a file may never answer
	if err != nil {
		return nil, err
	}
	var o trust.Options
	if demand.Secret == nil && demand.TrustedRoot == nil {
		if o.PublicRoot, err = publicRoot(a); err != nil {
			return nil, err
		}
	}
	authority, err := trust.NewAuthority(demand, o)
	return authority, inFlags(err)
}

// publicRoot is what keyless signatures are judged by that come with no root of
// trust.
func publicRoot(a *app) (*trust.PublicRoot, error) {
	folder, err := rootFolder(a.streams)
	if err != nil {
		return nil, err
	}
	return trust.NewPublicRoot(trust.PublicRootOptions{Folder: folder, Transport: a.registries.Roots()})
}

// rootFolder keeps the metadata of Sigstore's public root from one run to the next.
func rootFolder(s streams) (string, error) {
	if folder := s.getenv("TUF_ROOT"); folder != "" {
		return folder, nil
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("there is no folder to keep the public root of trust in: %w; set TUF_ROOT", err)
	}
	return filepath.Join(cache, programName, "sigstore-root"), nil
}

// demand reads the files of the flags.
func (f *demandFlags) demand() (trust.Demand, error) {
	if f.notationPolicy != "" || len(f.notationCertificates) > 0 {
		return f.notation()
	}
	d := trust.Demand{Provider: trust.ProviderCosign}
	var err error
	if f.trustedRoot != "" {
		if d.TrustedRoot, err = f.secretOf("--trusted-root", map[string]string{"trusted_root.json": f.trustedRoot}); err != nil {
			return d, err
		}
	}
	if len(f.keys) > 0 {
		d.Secret, err = f.keyFiles()
		return d, err
	}
	issuer, err := expression("--certificate-oidc-issuer", f.issuer, f.issuerExpression)
	if err != nil {
		return d, err
	}
	identity, err := expression("--certificate-identity", f.identity, f.identityExpression)
	if err != nil {
		return d, err
	}
	d.Identities = []trust.Identity{{Issuer: issuer, Subject: identity}}
	return d, nil
}

func (f *demandFlags) keyFiles() (*trust.Secret, error) {
	files := map[string]string{}
	for _, path := range f.keys {
		// Two files of one name in two folders are two keys.
		files[path] = path
	}
	secret, err := f.secretOf("--key", files)
	if err != nil {
		return nil, err
	}
	for path, text := range secret.Data {
		if block, _ := pem.Decode(text); block != nil && strings.Contains(block.Type, "PRIVATE KEY") {
			return nil, fmt.Errorf("--key: %q is a private key; give the public one, which cosign calls cosign.pub", path)
		}
	}
	return secret, nil
}

func (f *demandFlags) notation() (trust.Demand, error) {
	if f.notationPolicy == "" {
		return trust.Demand{}, errors.New("--notation-cert needs --notation-trust-policy, which says what the certificates are trusted for")
	}
	files := map[string]string{"trustpolicy.json": f.notationPolicy}
	for _, path := range f.notationCertificates {
		files[path] = path
	}
	secret, err := f.secretOf("--notation-trust-policy and --notation-cert", files)
	return trust.Demand{Provider: trust.ProviderNotation, Secret: secret}, err
}

// maxTrustBytes bounds a file of keys, certificates or rules.
const maxTrustBytes = 1 << 20

// secretOf reads files in place of a Secret, by the names of its entries.
func (f *demandFlags) secretOf(flags string, files map[string]string) (*trust.Secret, error) {
	secret := &trust.Secret{Name: flags, Data: map[string][]byte{}, Files: files}
	for entry, path := range files {
		text, err := readFile(path, f.follow, maxTrustBytes)
		if err != nil {
			return nil, fmt.Errorf("%s: cannot read %q: %w", flags, path, pathless(err))
		}
		secret.Data[entry] = text
	}
	return secret, nil
}

// expression returns the regular expression for a value that is given as it is
// or as one.
func expression(flag, value, pattern string) (string, error) {
	if value+pattern == "" {
		return "", fmt.Errorf("%s or %s-regexp is needed too: anybody can sign without a key", flag, flag)
	}
	if _, err := regexp.Compile(pattern); err != nil {
		return "", fmt.Errorf("%s-regexp: %w", flag, err)
	}
	return cmp.Or(pattern, regexp.QuoteMeta(value)), nil
}

// rulesOf is the demand that an authority accepts an artifact.
func rulesOf(from origin, by *trust.Authority) trust.Verifier {
	if by == nil {
		return trust.NoDemands{}
	}
	return trust.NewRules(from.repository, trust.Rule{Name: "signature", AnyOf: []trust.Alternative{{Authority: by}}}).Resolved()
}

// signer is the verified signer.
type signer struct {
	// Key is the sha256 of the public key, and File the file that it is in.
	Key     string `json:"key,omitempty"`
	File    string `json:"file,omitempty"`
	Subject string `json:"subject,omitempty"`
	Issuer  string `json:"issuer,omitempty"`
	// Format of the signature.
	Format string `json:"format"`
}

// newSigner returns nil for nobody.
func newSigner(s trust.Signer) *signer {
	if s == (trust.Signer{}) {
		return nil
	}
	return &signer{Key: s.Key, File: s.Entry, Subject: s.Subject, Issuer: s.Issuer, Format: string(s.Format)}
}

// String names the signer on one line.
func (s *signer) String() string {
	switch {
	case s == nil:
		return "accepted, but nobody is known to have signed it"
	case s.Key != "":
		return fmt.Sprintf("signed by key %s (sha256:%s), a %s", s.File, s.Key, s.Format)
	default:
		return fmt.Sprintf("signed by %s (issuer %s), a %s", s.Subject, s.Issuer, s.Format)
	}
}
