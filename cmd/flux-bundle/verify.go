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
	"errors"
	"io"

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
			return runVerify(cmd.Context(), a, args[0], &demand, out)
		},
	}
	demand.bind(cmd)
	out.bind(cmd)
	return cmd
}

// runVerify prints the result of a demand. The error is the reason why the artifact
// is not accepted.
func runVerify(ctx context.Context, a *app, reference string, demand *demandFlags, out output) error {
	verdict, err := judge(ctx, a, reference, demand)
	if verdict == nil || err != nil && out.format == "text" {
		return err
	}
	return errors.Join(out.print(a.out, verdict, verdict.text), err)
}

// judge returns nil in place of a verdict when what is asked for makes no sense.
func judge(ctx context.Context, a *app, reference string, demand *demandFlags) (*verdict, error) {
	by, err := demand.authority(ctx, a)
	if err != nil {
		return nil, err
	}
	from, err := openOrigin(ctx, a, reference)
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
