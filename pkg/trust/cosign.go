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
	"cmp"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/sigstore/cosign/v3/pkg/cosign"
	ctypes "github.com/sigstore/cosign/v3/pkg/types"
	"github.com/sigstore/sigstore-go/pkg/fulcio/certificate"
	"github.com/sigstore/sigstore-go/pkg/root"
	"github.com/sigstore/sigstore-go/pkg/verify"
	"github.com/sigstore/sigstore/pkg/cryptoutils"
	"github.com/sigstore/sigstore/pkg/signature"

	"github.com/image-source/image-source-controller/pkg/fault"
	"github.com/image-source/image-source-controller/pkg/limit"
)

// newCosign checks a demand for signatures of cosign's.
func newCosign(d Demand, o Options) (*Authority, error) {
	prints := []string{ProviderCosign}
	for _, format := range d.Formats {
		prints = append(prints, string(format))
	}
	opts := cosign.CheckOpts{IgnoreTlog: true, Offline: true}
	if d.TrustedRoot != nil {
		material, err := parseRoot(d.TrustedRoot)
		if err != nil {
			return nil, err
		}
		if opts, err = checksBy(material); err != nil {
			return nil, denyf(Rejected, "%s: %s", d.TrustedRoot, err)
		}
		prints = append(prints, "root", bytesPrint(d.TrustedRoot.Data[trustedRootEntry]))
	}
	if d.Secret != nil {
		return newKeyed(d, opts, prints)
	}
	return newKeyless(d, opts, o.PublicRoot, prints)
}

// checksBy returns how signatures are checked by a root. It refuses one by which
// nobody can tell that a certificate which lives for minutes was valid when it signed.
func checksBy(material root.TrustedMaterial) (cosign.CheckOpts, error) {
	logged := len(material.RekorLogs()) > 0
	if !logged && len(material.TimestampingAuthorities()) == 0 {
		return cosign.CheckOpts{}, errors.New("the trusted root lists neither a transparency log nor a timestamp authority, so nobody can tell when a signature was made")
	}
	return cosign.CheckOpts{TrustedMaterial: material, Offline: true, IgnoreTlog: !logged, UseSignedTimestamps: !logged}, nil
}

// newKeyed demands a signature by one of some keys.
func newKeyed(d Demand, opts cosign.CheckOpts, prints []string) (*Authority, error) {
	keys, notes := parseKeys(d.Secret)
	if len(keys) == 0 {
		return nil, denyf(Rejected, "%s has no usable public key: %s", d.Secret, cmp.Or(list(notes), "it has no entry that ends in .pub"))
	}
	if len(d.Identities) > 0 {
		notes = append(notes, "matchOIDCIdentity is not used, because secretRef names keys")
	}
	j := cosignJudge{formats: d.Formats}
	var alternatives []string
	for _, k := range keys {
		alternatives = append(alternatives, k.fingerprint)
		j.names = append(j.names, k.name())
		for _, verifier := range k.verifiers {
			opts.SigVerifier = verifier
			j.ways = append(j.ways, way{opts: opts, signer: Signer{Key: k.fingerprint, Entry: k.entry}, name: k.name()})
		}
	}
	return &Authority{begin: j.begin, prints: append(append(prints, "keys"), sorted(alternatives)...), notes: notes}, nil
}

// identity is a pair of expressions that match all of a value.
type identity struct{ issuer, subject *regexp.Regexp }

// newKeyless demands a signature by one of some identities. Without a root in opts, the
// public one vouches for them.
func newKeyless(d Demand, opts cosign.CheckOpts, public *PublicRoot, prints []string) (*Authority, error) {
	if len(d.Identities) > maxIdentities {
		return nil, invalidf("matchOIDCIdentity has %d entries, expected at most %d", len(d.Identities), maxIdentities)
	}
	if len(d.Identities) == 0 {
		return nil, invalidf("a demand without secretRef is for keyless signatures, and needs at least one entry in matchOIDCIdentity: anybody can sign without a key")
	}
	j := cosignJudge{formats: d.Formats}
	var alternatives []string
	for _, i := range d.Identities {
		parsed, err := parseIdentity(i)
		if err != nil {
			return nil, err
		}
		j.identities = append(j.identities, parsed)
		alternatives = append(alternatives, digestOf([]string{i.Issuer, i.Subject}))
	}
	authority := &Authority{prints: append(append(prints, "identities"), sorted(alternatives)...)}
	if opts.TrustedMaterial != nil {
		// A private root that lists certificate logs wants them as the public one does.
		opts.IgnoreSCT = len(opts.TrustedMaterial.CTLogs()) == 0
		j.keyless = opts
		authority.begin = j.begin
		return authority, nil
	}
	authority.public = public
	authority.begin = func(ctx context.Context, subject Subject, strict bool) (judge, error) {
		material, err := public.material(ctx)
		if err != nil {
			return nil, err
		}
		now := j
		if now.keyless, err = checksBy(material); err != nil {
			return nil, err
		}
		return now.begin(ctx, subject, strict)
	}
	return authority, nil
}

func parseIdentity(i Identity) (identity, error) {
	issuer, err := anchored(i.Issuer)
	if err != nil {
		return identity{}, invalidf("the issuer %s of matchOIDCIdentity %s", fault.Quote(i.Issuer), err)
	}
	subject, err := anchored(i.Subject)
	if err != nil {
		return identity{}, invalidf("the subject %s of matchOIDCIdentity %s", fault.Quote(i.Subject), err)
	}
	return identity{issuer: issuer, subject: subject}, nil
}

const (
	// maxIdentities bounds matchOIDCIdentity.
	maxIdentities = 16
	// maxIdentityValue bounds an issuer and a subject in a certificate, in bytes, and
	// maxSubjects the subjects. Certificates for signatures have one.
	maxIdentityValue, maxSubjects = 1 << 10, 4
)

// anchored compiles an expression so that it has to match all of a value.
func anchored(expression string) (*regexp.Regexp, error) {
	if expression == "" {
		return nil, errors.New("must not be empty")
	}
	// By itself first: an expression that is only valid between the brackets could
	// end them. One that is only valid by itself could hide them.
	if _, err := limit.Expression(expression); err != nil {
		return nil, err
	}
	whole, err := regexp.Compile("^(?:" + expression + ")$")
	if err != nil {
		return nil, fmt.Errorf("is not a regular expression: %s", fault.WordsOf(err))
	}
	return whole, nil
}

// way is one set of options under which a signature may be good.
type way struct {
	opts cosign.CheckOpts
	// signer is who signed if it is.
	signer Signer
	name   string // of the key, for words
}

// cosignJudge judges signatures of cosign's.
type cosignJudge struct {
	// digest of the subject.
	digest v1.Hash
	// ways are those of keys.
	ways []way
	// identities of which one has to sign; none for keys.
	identities []identity
	// keyless are the options for a signature by one of the identities, without one.
	keyless cosign.CheckOpts

	names   []string // of the keys, for words
	formats []Format // that count; empty: all
}

func (j cosignJudge) begin(_ context.Context, subject Subject, _ bool) (judge, error) {
	j.digest = subject.Digest
	return &j, nil
}

// waysFor returns the ways in which a signature may be good. A certificate must be
// for a listed identity, and cosign is asked for exactly that one: cosign would
// compile the expressions again for each signature.
func (j *cosignJudge) waysFor(c cosignSignature) (ways []way) {
	if len(j.identities) == 0 {
		return j.ways
	}
	if c.certificate() == nil {
		return nil
	}
	issuer, subjects := identityOf(c.certificate())
	for _, subject := range subjects {
		if !slices.ContainsFunc(j.identities, func(i identity) bool { return i.issuer.MatchString(issuer) && i.subject.MatchString(subject) }) {
			continue
		}
		only := cosign.Identity{Issuer: issuer, Subject: subject}
		// cosign takes an empty value for any.
		if issuer == "" {
			only.IssuerRegExp = "^$"
		}
		if subject == "" {
			only.SubjectRegExp = "^$"
		}
		opts := j.keyless
		opts.Identities = []cosign.Identity{only}
		ways = append(ways, way{opts: opts, signer: Signer{Issuer: issuer, Subject: subject}})
	}
	return ways
}

func (j *cosignJudge) reads() kind { return forCosign }

func (j *cosignJudge) judge(ctx context.Context, s anySignature) (*Evidence, *found, error) {
	c, ok := s.(cosignSignature)
	if !ok || len(j.formats) > 0 && !slices.Contains(j.formats, c.format()) {
		return nil, nil, nil
	}
	var last error
	for _, w := range j.waysFor(c) {
		if err := ctx.Err(); err != nil {
			return nil, nil, fmt.Errorf("there was no time to verify a %s: %w", c.format(), err)
		}
		evidence, err := guarded(func() (*Evidence, error) { return c.verify(ctx, w.opts, j.digest) })
		if err == nil {
			evidence.Signer = w.signer
			evidence.Signer.Format = c.format()
			return evidence, nil, nil
		}
		last = err
	}
	what, err := guarded(func() (*found, error) { return j.diagnose(c, last), nil })
	if err != nil {
		what = foundf(Malformed, "a %s that cannot be read: %s", c.format(), fault.WordsOf(err))
	}
	return nil, what, nil
}

// errBroken is a signature that broke the code which reads it.
var errBroken = errors.New("it is malformed, and made this program panic, which is a fault of this program")

// guarded calls code that parses what anybody may have pushed. A signature must
// not end the process that looks at it.
func guarded[T any](parse func() (T, error)) (result T, err error) {
	defer func() {
		if recover() != nil {
			err = errBroken
		}
	}()
	return parse()
}

// identityOf reads a certificate of Fulcio's.
func identityOf(cert *x509.Certificate) (issuer string, subjects []string) {
	subjects = cryptoutils.GetSubjectAlternateNames(cert)
	extensions, err := certificate.ParseExtensions(cert.Extensions)
	if err != nil {
		return "", subjects
	}
	return extensions.Issuer, subjects
}

// holderOf names the identity in a certificate of Fulcio's for a person.
func holderOf(cert *x509.Certificate) string {
	issuer, subjects := identityOf(cert)
	return fmt.Sprintf("%s of issuer %s", fault.Quote(strings.Join(subjects, ", ")), fault.Quote(issuer))
}

// diagnose says what is wrong with a signature that was refused: only what is
// proven, and else what the last check said.
func (j *cosignJudge) diagnose(c cosignSignature, refusal error) *found {
	if kind, _ := c.statement(); kind == messageKind {
		return foundf(OtherPredicate, "a %s of a message, not of an image", c.format())
	}
	if len(j.identities) > 0 {
		return j.diagnoseKeyless(c, refusal)
	}
	for _, w := range j.ways {
		if c.signedBy(w.opts.SigVerifier) {
			return j.content(c, "key "+w.name, refusal)
		}
	}
	keys := strings.Join(j.names, " or ")
	if c.certificate() != nil {
		return foundf(OtherKey, "a %s by a certificate for %s, not by %s", c.format(), holderOf(c.certificate()), keys)
	}
	return foundf(OtherKey, "a %s by another key than %s", c.format(), keys)
}

func (j *cosignJudge) diagnoseKeyless(c cosignSignature, refusal error) *found {
	cert := c.certificate()
	if cert == nil {
		return foundf(OtherKey, "a %s by a key, not by an identity", c.format())
	}
	// Anybody can push a certificate. Nothing is verified with it until somebody
	// vouches for it.
	if !vouched(cert, j.keyless.TrustedMaterial) {
		return foundf(Untrusted, "a %s by a certificate that the trusted root does not vouch for", c.format())
	}
	if !signedByCertificate(c, cert) {
		return foundf(Malformed, "a %s that its own certificate does not verify", c.format())
	}
	by := holderOf(cert)
	if len(j.waysFor(c)) == 0 {
		return foundf(OtherIdentity, "a %s by another identity: %s", c.format(), by)
	}
	for _, at := range c.times() {
		if at.Before(cert.NotBefore) || at.After(cert.NotAfter) {
			return foundf(Expired, "a %s by %s that was made at %s, when its certificate (%s to %s) was not valid", c.format(), by,
				at.UTC().Format(time.RFC3339), cert.NotBefore.UTC().Format(time.RFC3339), cert.NotAfter.UTC().Format(time.RFC3339))
		}
	}
	return j.content(c, by, refusal)
}

// content says what is wrong with a signature whose signer is a good one.
func (j *cosignJudge) content(c cosignSignature, by string, refusal error) *found {
	kind, digests := c.statement()
	switch {
	case kind != "" && kind != ctypes.CosignSignPredicateType:
		return foundf(OtherPredicate, "a %s by %s that does not say the image is signed, but is of type %s", c.format(), by, fault.Quote(kind))
	case !slices.Contains(digests, j.digest.String()):
		return foundf(OtherDigest, "a %s by %s of another image: %s", c.format(), by, fault.Quote(strings.Join(digests, ", ")))
	default:
		return foundf(Unproven, "a %s by %s that does not hold: %s", c.format(), by, fault.Words(fmt.Sprint(refusal)))
	}
}

func signedByCertificate(c cosignSignature, cert *x509.Certificate) bool {
	verifiers, err := verifiersOf(cert.PublicKey)
	return err == nil && slices.ContainsFunc(verifiers, func(v signature.Verifier) bool { return c.signedBy(v) })
}

func vouched(cert *x509.Certificate, material root.TrustedMaterial) bool {
	parsed, err := x509.ParseCertificate(cert.Raw)
	if err != nil {
		return false
	}
	// Names that the standard library cannot read are legal here.
	parsed.UnhandledCriticalExtensions = slices.DeleteFunc(parsed.UnhandledCriticalExtensions, cryptoutils.SANOID.Equal)
	_, err = verify.VerifyLeafCertificate(parsed.NotBefore, parsed, material)
	return err == nil
}
