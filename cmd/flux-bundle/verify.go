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
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/spf13/cobra"

	"github.com/image-source/image-source-controller/pkg/registry"
	"github.com/image-source/image-source-controller/pkg/trust"
)

const verifyLong = `verify checks the signatures of an artifact with the code by which image-source-controller checks them for spec.verify, and prints who signed. Cosign's
bundles and legacy signatures both count, wherever the registry keeps them.

With --key any of the keys is enough. With a certificate identity and issuer, keyless signatures count: by Sigstore's public good instance, or by the authorities
of --trusted-root. The expressions have to match all of a value, as in spec.verify.matchOIDCIdentity. With --key, the transparency log of --trusted-root has to
know each signature. With --notation-trust-policy and --notation-cert, signatures of the Notary Project count.

What is verified is a digest, which is printed: refer to the artifact by it from then on. The exit code is 1 when the artifact is not accepted; in -o json the
verdict tells "rejected" (everything was looked at, and no good signature was there) from "unknown" (it could not be found out).`

const verifyExample = `  # verify with a key
  flux bundle verify ghcr.io/org/app-deploy:v1.0.0 --key cosign.pub

  # verify that a release workflow has signed it
  flux bundle verify ghcr.io/org/app-deploy:v1.0.0 \
    --certificate-identity-regexp 'https://github.com/org/app/\.github/workflows/release\.yaml@refs/tags/.*' \
    --certificate-oidc-issuer https://token.actions.githubusercontent.com

  # verify with a Sigstore of one's own
  flux bundle verify registry.example.com/app-deploy:v1.0.0 --trusted-root trusted_root.json \
    --certificate-identity ci@example.com --certificate-oidc-issuer https://issuer.example.com

  # verify a signature of the Notary Project
  flux bundle verify registry.example.com/app-deploy:v1.0.0 --notation-trust-policy trustpolicy.json --notation-cert ca.crt`

func newVerify(a *app) *cobra.Command {
	var demand demandFlags
	var out output
	cmd := &cobra.Command{
		Use:               "verify REFERENCE",
		Short:             "Verify the signatures of an artifact",
		Long:              verifyLong,
		Example:           verifyExample,
		Args:              oneReference,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := cmp.Or(out.check(), demand.check()); err != nil {
				return err
			}
			if !demand.isSet() {
				return errors.New("nothing says whose signature is wanted: give --key, or a certificate identity and issuer, or --notation-trust-policy")
			}
			return a.verify(cmd.Context(), args[0], demand, out)
		},
	}
	demand.bind(cmd)
	out.bind(cmd)
	cmd.Flags().BoolVar(&demand.follow, followFlag, false, followUsage)
	return cmd
}

// verify prints what comes of a demand. The error is the reason why the artifact
// is not accepted.
func (a *app) verify(ctx context.Context, reference string, demand demandFlags, out output) error {
	verdict, err := a.judge(ctx, reference, demand)
	if verdict == nil || err != nil && out.format == "text" {
		return err
	}
	return errors.Join(out.print(a.out, verdict, verdict.text), err)
}

// judge returns nil in place of a verdict when what is asked for makes no sense.
func (a *app) judge(ctx context.Context, reference string, demand demandFlags) (*verdict, error) {
	by, err := a.authority(ctx, demand)
	if err != nil {
		return nil, err
	}
	from, err := a.open(ctx, reference)
	if err != nil {
		return nil, err
	}
	v := &verdict{Repository: from.repository.Name(), Tag: from.tag, Verdict: trust.Unknown.String()}
	// A digest is asked for too: what is not there is not verified.
	manifest, err := from.repository.Resolve(ctx, registry.Query{Tag: from.tag, Digest: from.digest})
	if err != nil {
		v.Message = oneLine(err.Error())
		return v, err
	}
	v.Digest = manifest.Digest.String()
	proof, err := rulesOf(from, by).Verify(ctx, trust.Subject{Repository: v.Repository, Digest: manifest.Digest})
	v.take(proof, err)
	return v, err
}

// rulesOf is the demand that an authority accepts an artifact.
func rulesOf(from origin, by *trust.Authority) trust.Verifier {
	if by == nil {
		return trust.NoDemands{}
	}
	return trust.NewRules(from.repository, trust.Rule{Name: "signature", AnyOf: []trust.Alternative{{Authority: by}}}).Resolved()
}

// verdict is the result of verify, with stable names.
type verdict struct {
	Repository string `json:"repository"`
	Tag        string `json:"tag,omitempty"`
	Digest     string `json:"digest,omitempty"`
	// Verdict is accepted, rejected or unknown.
	Verdict string  `json:"verdict"`
	Signer  *signer `json:"signer,omitempty"`
	// Found are the kinds of signatures that were found and do not count.
	Found []string `json:"found,omitempty"`
	// Message says why it was not accepted, or what is odd though it was.
	Message string `json:"message,omitempty"`
}

// signer is who signed, as it was verified.
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

// String says who signed on one line.
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

func (v *verdict) take(proof trust.Verified, err error) {
	v.Verdict = trust.VerdictOf(err).String()
	rulings := proof.Rulings()
	if failure, ok := errors.AsType[*trust.VerificationError](err); ok {
		rulings = failure.Rulings
	}
	for _, r := range rulings {
		v.Message = r.Words
		for _, f := range r.Found {
			v.Found = append(v.Found, string(f))
		}
		v.Signer = newSigner(r.Signer())
	}
	if err != nil && v.Message == "" {
		v.Message = oneLine(err.Error())
	}
}

// text writes the verdict of an artifact that was accepted for a person.
func (v *verdict) text(w io.Writer) error {
	p := &page{}
	p.linef("%s@%s", v.Repository, v.Digest)
	p.linef("%s", v.Signer)
	if v.Message != "" {
		p.linef("note: %s", v.Message)
	}
	_, err := io.WriteString(w, p.String())
	return err
}

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

// authority returns who judges by the flags; nil when they demand nothing.
func (a *app) authority(ctx context.Context, f demandFlags) (*trust.Authority, error) {
	if !f.isSet() {
		return nil, nil //nolint:nilnil // nobody judges
	}
	demand, err := await(ctx, f.demand) // a pipe in the place of a file may never answer
	if err != nil {
		return nil, err
	}
	var o trust.Options
	if demand.Secret == nil && demand.TrustedRoot == nil {
		if o.PublicRoot, err = a.publicRoot(); err != nil {
			return nil, err
		}
	}
	authority, err := trust.NewAuthority(demand, o)
	return authority, inFlags(err)
}

// publicRoot is what keyless signatures are judged by that come with no root of
// trust.
func (a *app) publicRoot() (*trust.PublicRoot, error) {
	folder, err := a.rootFolder()
	if err != nil {
		return nil, err
	}
	return trust.NewPublicRoot(trust.PublicRootOptions{Folder: folder, Transport: a.registries.Roots()})
}

// rootFolder keeps the metadata of Sigstore's public root from one run to the next.
func (a *app) rootFolder() (string, error) {
	if folder := a.getenv("TUF_ROOT"); folder != "" {
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
