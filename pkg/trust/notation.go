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

package trust

import (
	"bytes"
	"cmp"
	"context"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/notaryproject/notation-core-go/revocation"
	"github.com/notaryproject/notation-core-go/revocation/crl"
	"github.com/notaryproject/notation-core-go/revocation/purpose"
	"github.com/notaryproject/notation-core-go/revocation/result"
	"github.com/notaryproject/notation-core-go/signature"
	"github.com/notaryproject/notation-core-go/signature/cose"
	"github.com/notaryproject/notation-core-go/signature/jws"
	"github.com/notaryproject/notation-go"
	"github.com/notaryproject/notation-go/verifier"
	"github.com/notaryproject/notation-go/verifier/trustpolicy"
	"github.com/notaryproject/notation-go/verifier/truststore"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/image-source/image-source-controller/pkg/fault"
	"github.com/image-source/image-source-controller/pkg/limit"
	"github.com/image-source/image-source-controller/pkg/reference"
)

const (
	notationType = "application/vnd.cncf.notary.signature"
	// payloadType is what an envelope holds that signs an image.
	payloadType = "application/vnd.cncf.notary.payload.v1+json"
	// trustPolicyEntry is the entry of a Secret that holds a trust policy.
	trustPolicyEntry = "trustpolicy.json"
	// revocationTimeout bounds one question to a server of a certificate authority.
	revocationTimeout = 5 * time.Second
)

// notationSignature is a signature of the Notary Project.
type notationSignature struct {
	envelope  []byte
	mediaType string
	// target describes the image as a signature does.
	target ocispec.Descriptor
}

func (n *notationSignature) format() Format {
	if n.mediaType == cose.MediaTypeEnvelope {
		return NotationCOSE
	}
	return NotationJWS
}

// content returns the content of an envelope, of which nothing is proven.
func (n *notationSignature) content() (*signature.EnvelopeContent, error) {
	envelope, err := signature.ParseEnvelope(n.mediaType, n.envelope)
	if err != nil {
		return nil, err
	}
	return envelope.Content()
}

// signedDigest returns the digest of the image that a payload is about.
func signedDigest(payload []byte) (digest.Digest, error) {
	var signed struct {
		TargetArtifact ocispec.Descriptor `json:"targetArtifact"`
	}
	err := json.Unmarshal(payload, &signed)
	return signed.TargetArtifact.Digest, err
}

// payloadType returns the type of what an envelope holds, if the envelope
// matches what it brings along.
func (n *notationSignature) payloadType() (string, error) {
	envelope, err := signature.ParseEnvelope(n.mediaType, n.envelope)
	if err != nil {
		return "", err
	}
	content, err := envelope.Verify()
	if err != nil {
		return "", err
	}
	return content.Payload.ContentType, nil
}

// notationMethod demands a signature that a trust policy accepts.
type notationMethod struct {
	policy       *trustpolicy.Document
	certificates certificates
	revocation   http.RoundTripper
}

// certificates are those of a Secret, by what they vouch for: who signs, or when.
// All stores of a kind have the same.
type certificates struct{ signing, stamping []*x509.Certificate }

// GetCertificates implements truststore.X509TrustStore.
func (c certificates) GetCertificates(_ context.Context, kind truststore.Type, _ string) ([]*x509.Certificate, error) {
	if kind == truststore.TypeTSA {
		return c.stamping, nil
	}
	return c.signing, nil
}

// stampPrefix begins the names of the entries that hold the certificates of
// timestamp authorities, where a policy names a store of such.
const stampPrefix = "tsa"

// stamps tells whether a policy names a store of timestamp authorities.
func stamps(policy *trustpolicy.Document) bool {
	return slices.ContainsFunc(policy.TrustPolicies, func(p trustpolicy.TrustPolicy) bool {
		return slices.ContainsFunc(p.TrustStores, func(store string) bool {
			return strings.HasPrefix(store, string(truststore.TypeTSA)+":")
		})
	})
}

// newNotation checks a demand for signatures of the Notary Project.
func newNotation(d Demand, o Options) (*Authority, error) {
	if d.Secret == nil {
		return nil, invalidf("the provider %s needs secretRef: a Secret with %s and certificates", ProviderNotation, trustPolicyEntry)
	}
	policy, err := parsePolicy(d.Secret)
	if err != nil {
		return nil, err
	}
	apart := stamps(policy)
	trusted, notes := parseCertificates(d.Secret, apart)
	skips := !slices.ContainsFunc(policy.TrustPolicies, func(p trustpolicy.TrustPolicy) bool {
		return p.SignatureVerification.VerificationLevel != trustpolicy.LevelSkip.Name
	})
	if len(trusted.signing) == 0 && !skips {
		why := "it has no entry that ends in .crt or .pem"
		if len(trusted.stamping) > 0 {
			why += " and does not begin with " + stampPrefix + ", as those of timestamp authorities do"
		}
		return nil, denyf(Rejected, "%s has no usable certificate: %s", d.Secret, cmp.Or(list(notes), why))
	}
	if len(d.Identities) > 0 || d.TrustedRoot != nil {
		notes = append(notes, "matchOIDCIdentity and trustedRootSecretRef are not used: they are for cosign")
	}
	effective, err := json.Marshal(policy)
	if err != nil {
		return nil, invalidf("the trust policy cannot be written: %s", fault.WordsOf(err))
	}
	prints := append([]string{ProviderNotation, bytesPrint(effective)}, printsOf(trusted.signing)...)
	if apart {
		prints = append(append(prints, string(truststore.TypeTSA)), printsOf(trusted.stamping)...)
		if len(trusted.stamping) == 0 {
			notes = append(notes, "the trust policy names a store of timestamp authorities, and no entry begins with "+stampPrefix+", so that no timestamp counts")
		}
	}
	method := &notationMethod{policy: policy, certificates: trusted, revocation: o.Revocation}
	return &Authority{begin: method.begin, prints: prints, notes: notes}, nil
}

// The cost of a trust policy is bounded before it is validated: validation compares
// each identity of a statement with each other one.
const (
	// maxTrustPolicy bounds the document, in bytes, and maxTrustPolicyValues in JSON
	// values.
	maxTrustPolicy, maxTrustPolicyValues = 64 << 10, 2500
	// maxStatements and maxTrustedIdentities bound the statements and the identities of
	// each.
	maxStatements, maxTrustedIdentities = 100, 100
	// maxTrusted bounds the certificates of a Secret, and maxTrustedBytes the bytes of
	// all entries that hold them: each name in a certificate becomes a value.
	maxTrusted, maxTrustedBytes = 100, 256 << 10
)

// parsePolicy reads a trust policy (Notary Project, trust-store-trust-policy.md).
func parsePolicy(secret *Secret) (*trustpolicy.Document, error) {
	policy := &trustpolicy.Document{}
	if err := secret.decode(trustPolicyEntry, "a trust policy", maxTrustPolicy, func(text []byte) error {
		limits := limit.JSON{Values: maxTrustPolicyValues, Elements: maxStatements, Lists: []string{"trustpolicies"}}
		if _, err := limits.Scan("it", text); err != nil {
			return err
		}
		return json.Unmarshal(text, policy)
	}); err != nil {
		return nil, err
	}
	for i := range policy.TrustPolicies {
		statement := &policy.TrustPolicies[i]
		// What a statement that skips everything says of trust is of no use, and not
		// worth a failure.
		if statement.SignatureVerification.VerificationLevel == trustpolicy.LevelSkip.Name {
			statement.TrustStores, statement.TrustedIdentities = nil, nil
		}
		if count := len(statement.TrustedIdentities); count > maxTrustedIdentities {
			return nil, denyf(Rejected, "%s has %d trustedIdentities in one statement, expected at most %d", secret.entry(trustPolicyEntry), count, maxTrustedIdentities)
		}
	}
	if err := policy.Validate(); err != nil {
		return nil, denyf(Rejected, "%s is not a valid trust policy: %s", secret.entry(trustPolicyEntry), fault.WordsOf(err))
	}
	return policy, nil
}

func printsOf(certificates []*x509.Certificate) (prints []string) {
	for _, certificate := range certificates {
		prints = append(prints, bytesPrint(certificate.Raw))
	}
	return sorted(prints)
}

// parseCertificates reads every entry of a Secret that ends in .crt or .pem. Apart
// tells that those of timestamp authorities are not for signers.
func parseCertificates(secret *Secret, apart bool) (trusted certificates, notes []string) {
	size := 0
	notes = secret.read(func(entry string) error {
		if size += len(secret.Data[entry]); size > maxTrustedBytes {
			return fmt.Errorf("at most %d bytes of certificates are read of a Secret", maxTrustedBytes)
		}
		parsed, err := parseChain(secret.Data[entry])
		if err != nil {
			return err
		}
		if len(trusted.signing)+len(trusted.stamping)+len(parsed) > maxTrusted {
			return fmt.Errorf("at most %d certificates of a Secret are read", maxTrusted)
		}
		if apart && strings.HasPrefix(entry, stampPrefix) {
			trusted.stamping = append(trusted.stamping, parsed...)
		} else {
			trusted.signing = append(trusted.signing, parsed...)
		}
		return nil
	}, ".crt", ".pem")
	return trusted, notes
}

var errNoCertificate = errors.New("it is not a certificate in PEM or DER format")

func parseChain(data []byte) ([]*x509.Certificate, error) {
	if err := limit.Keys(data); err != nil {
		return nil, fmt.Errorf("it holds %w", err)
	}
	block, rest := pem.Decode(data)
	if block == nil {
		parsed, err := x509.ParseCertificates(data)
		if err != nil || len(parsed) == 0 {
			return nil, errNoCertificate
		}
		return parsed, nil
	}
	var chain []*x509.Certificate
	for ; block != nil && len(chain) <= maxTrusted; block, rest = pem.Decode(rest) {
		parsed, err := x509.ParseCertificate(block.Bytes)
		if err != nil || block.Type != "CERTIFICATE" {
			return nil, errNoCertificate
		}
		chain = append(chain, parsed)
	}
	return chain, nil
}

func (m *notationMethod) begin(_ context.Context, subject Subject, strict bool) (judge, error) {
	asked := m.spelled(subject)
	statement, err := m.policy.GetApplicableTrustPolicy(asked)
	if err != nil {
		return nil, denyf(Rejected, "no statement of the trust policy is for the repository %s: list it, or *, in registryScopes", subject.Repository)
	}
	level, err := statement.SignatureVerification.GetVerificationLevel()
	if err != nil {
		return nil, denyf(Rejected, "the trust policy %s is not valid: %s", fault.Quote(statement.Name), fault.WordsOf(err))
	}
	j := &notationJudge{method: m, reference: asked, statement: statement, level: level}
	switch {
	case strict && j.logs():
		return nil, denyf(Rejected, "the level %s of the trust policy %s only logs a wrong signer, which is not enough here", fault.Quote(level.Name), fault.Quote(statement.Name))
	case level.Name == trustpolicy.LevelSkip.Name:
		return nil, nil //nolint:nilnil // no signature is looked at
	default:
		return j, nil
	}
}

// spelled names a subject as the policy lists its repository: notation calls Docker
// Hub docker.io, so that policies made for it do, too.
func (m *notationMethod) spelled(subject Subject) string {
	path, ok := strings.CutPrefix(subject.Repository, reference.DockerHub+"/")
	short := Subject{Repository: "docker.io/" + path, Digest: subject.Digest}
	if ok && m.scopes(short.Repository) && !m.scopes(subject.Repository) {
		return short.String()
	}
	return subject.String()
}

// scopes tells whether a statement lists a repository by its name.
func (m *notationMethod) scopes(repository string) bool {
	return slices.ContainsFunc(m.policy.TrustPolicies, func(p trustpolicy.TrustPolicy) bool {
		return slices.Contains(p.RegistryScopes, repository)
	})
}

// notationJudge judges signatures of the Notary Project.
type notationJudge struct {
	method    *notationMethod
	reference string
	statement *trustpolicy.TrustPolicy
	level     *trustpolicy.VerificationLevel
}

func (j *notationJudge) reads() kind { return forNotation }

// logs tells whether the wrong signer would be logged, and no more.
func (j *notationJudge) logs() bool {
	return j.level.Enforcement[trustpolicy.TypeAuthenticity] != trustpolicy.ActionEnforce
}

func (j *notationJudge) judge(ctx context.Context, s anySignature) (*Evidence, *found, error) {
	n, ok := s.(*notationSignature)
	if !ok {
		return nil, nil, nil
	}
	status := &statusCheck{}
	outcome, err := guarded(func() (*notation.VerificationOutcome, error) { return j.verify(ctx, n, status) })
	switch {
	case err == nil && j.logs():
		return &Evidence{}, nil, nil
	case err == nil:
		leaf := outcome.EnvelopeContent.SignerInfo.CertificateChain[0]
		signer := Signer{Subject: leaf.Subject.String(), Issuer: leaf.Issuer.String(), Format: n.format()}
		return &Evidence{Signer: signer, Subjects: []string{n.target.Digest.String()}}, nil, nil
	}
	what, unclear := j.diagnose(n, outcome, err)
	if unclear && status.unknown {
		return nil, nil, fmt.Errorf("whether the certificate of a %s was revoked is unknown: %s", n.format(), fault.WordsOf(err))
	}
	return nil, what, nil
}

// authorities is the connection to those who know what was revoked. Where the
// level only logs that, the answer would change nothing, and nobody is asked.
func (j *notationJudge) authorities() http.RoundTripper {
	if j.method.revocation == nil || j.level.Enforcement[trustpolicy.TypeRevocation] != trustpolicy.ActionEnforce {
		return nobody{}
	}
	return j.method.revocation
}

// verify makes a verifier of its own, to learn what became of its question for
// the status of certificates.
func (j *notationJudge) verify(ctx context.Context, n *notationSignature, status *statusCheck) (*notation.VerificationOutcome, error) {
	signing, err := status.validator(j.authorities(), purpose.CodeSigning)
	if err != nil {
		return nil, err
	}
	stamping, err := status.validator(j.authorities(), purpose.Timestamping)
	if err != nil {
		return nil, err
	}
	// Each verifier validates its policy again. The other statements do not matter here.
	policy := &trustpolicy.Document{Version: j.method.policy.Version, TrustPolicies: []trustpolicy.TrustPolicy{*j.statement}}
	by, err := verifier.NewWithOptions(policy, j.method.certificates, nil, verifier.VerifierOptions{
		RevocationCodeSigningValidator: signing, RevocationTimestampingValidator: stamping,
	})
	if err != nil {
		return nil, err
	}
	return by.Verify(ctx, n.target, n.envelope, notation.VerifierVerifyOptions{ArtifactReference: j.reference, SignatureMediaType: n.mediaType})
}

// diagnose says what is wrong with a signature that was refused. unclear is true
// when it is the status of a certificate.
func (j *notationJudge) diagnose(n *notationSignature, outcome *notation.VerificationOutcome, refusal error) (what *found, unclear bool) {
	format := n.format()
	if outcome == nil || outcome.EnvelopeContent == nil {
		if kind, err := guarded(n.payloadType); err == nil && kind != payloadType {
			return foundf(OtherPredicate, "a %s that does not say the image is signed, but is of type %s", format, fault.Quote(kind)), false
		}
		return foundf(Malformed, "a %s that cannot be read: %s", format, fault.WordsOf(refusal)), false
	}
	signer := "nobody"
	if chain := outcome.EnvelopeContent.SignerInfo.CertificateChain; len(chain) > 0 {
		signer = fault.Quote(chain[0].Subject.String())
	}
	for _, check := range outcome.VerificationResults {
		if check.Error == nil || check.Action != trustpolicy.ActionEnforce {
			continue
		}
		switch check.Type {
		case trustpolicy.TypeIntegrity:
			return foundf(Malformed, "a %s that does not hold: %s", format, fault.WordsOf(check.Error)), false
		case trustpolicy.TypeAuthenticity:
			return foundf(OtherIdentity, "a %s by %s, whom the trust policy %s does not trust", format, signer, fault.Quote(j.statement.Name)), false
		case trustpolicy.TypeExpiry, trustpolicy.TypeAuthenticTimestamp:
			return foundf(Expired, "a %s by %s that is not valid any more: %s", format, signer, fault.WordsOf(check.Error)), check.Type == trustpolicy.TypeAuthenticTimestamp
		case trustpolicy.TypeRevocation:
			return foundf(Revoked, "a %s by %s: %s", format, signer, fault.WordsOf(check.Error)), true
		default:
			return foundf(Unproven, "a %s by %s: %s", format, signer, fault.WordsOf(check.Error)), false
		}
	}
	if signed, err := signedDigest(outcome.EnvelopeContent.Payload.Content); err == nil && signed != n.target.Digest {
		return foundf(OtherDigest, "a %s by %s of another image: %s", format, signer, fault.Quote(signed)), false
	}
	return foundf(Unproven, "a %s by %s that does not hold: %s", format, signer, fault.WordsOf(refusal)), false
}

// statusCheck asks certificate authorities whether they revoked a certificate,
// and remembers whether they failed to say so.
type statusCheck struct{ unknown bool }

func (c *statusCheck) validator(through http.RoundTripper, of purpose.Purpose) (revocation.Validator, error) {
	fetcher, err := crl.NewHTTPFetcher(&http.Client{Transport: through, Timeout: revocationTimeout})
	if err != nil {
		return nil, err
	}
	responders := &http.Client{Transport: responders{through}, Timeout: revocationTimeout}
	inner, err := revocation.NewWithOptions(revocation.Options{OCSPHTTPClient: responders, CRLFetcher: fetcher, CertChainPurpose: of})
	if err != nil {
		return nil, err
	}
	return watched{Validator: inner, statusCheck: c}, nil
}

type watched struct {
	revocation.Validator
	*statusCheck
}

// ValidateContext implements revocation.Validator.
func (w watched) ValidateContext(ctx context.Context, options revocation.ValidateContextOptions) ([]*result.CertRevocationResult, error) {
	results, err := w.Validator.ValidateContext(ctx, options)
	revoked := slices.ContainsFunc(results, func(r *result.CertRevocationResult) bool { return r.Result == result.ResultRevoked })
	unknown := slices.ContainsFunc(results, func(r *result.CertRevocationResult) bool { return r.Result == result.ResultUnknown })
	if !revoked && (unknown || err != nil) {
		w.unknown = true
	}
	return results, err
}

// maxResponse bounds an answer of an OCSP responder, in bytes.
const maxResponse = 64 << 10

// responders is a connection to OCSP responders (RFC 6960), whose answers bring a
// certificate along that they are verified with before anybody vouches for it.
type responders struct{ through http.RoundTripper }

// RoundTrip implements http.RoundTripper.
func (r responders) RoundTrip(request *http.Request) (*http.Response, error) {
	answer, err := r.through.RoundTrip(request)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	body, err := limit.ReadAll(answer.Body, maxResponse)
	if err == nil {
		err = limit.Keys(body)
	}
	if err != nil {
		return nil, err
	}
	answer.Body = io.NopCloser(bytes.NewReader(body))
	return answer, nil
}

// nobody is a connection to nobody.
type nobody struct{}

// RoundTrip implements http.RoundTripper.
func (nobody) RoundTrip(*http.Request) (*http.Response, error) {
	return nil, errors.New("asking certificate authorities is not allowed here")
}

// isEnvelope tells whether a blob is a signature of the Notary Project.
func isEnvelope(layer v1.Descriptor) bool {
	return layer.MediaType == jws.MediaTypeEnvelope || layer.MediaType == cose.MediaTypeEnvelope
}
