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
	"bytes"
	"cmp"
	"crypto"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"math/big"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/types"
	coresignature "github.com/notaryproject/notation-core-go/signature"
	"github.com/notaryproject/notation-core-go/signature/jws"
	. "github.com/onsi/gomega"

	"github.com/image-source/image-source-controller/pkg/registry"
	"github.com/image-source/image-source-controller/pkg/trust"
)

const notationArtifact = "application/vnd.cncf.notary.signature"

// notary is a certificate authority and one who signs with a certificate of it.
type notary struct {
	root *x509.Certificate
	top  crypto.Signer
	leaf *x509.Certificate
	pair pair
}

// newNotary makes an authority; common is the name of who signs.
func newNotary(t *testing.T, common string) *notary {
	t.Helper()
	n := &notary{top: newPair(t).private}
	template := authorityTemplate("notary root")
	template.Subject = pkix.Name{Country: []string{"US"}, Province: []string{"WA"}, Organization: []string{"Notary"}, CommonName: "root"}
	n.root = issue(t, template, nil, n.top.Public(), n.top)
	return n.signer(t, common)
}

// signer returns another signer of the same authority. The servers know what
// was revoked.
func (n *notary) signer(t *testing.T, common string, servers ...string) *notary {
	t.Helper()
	return n.certified(t, func(template *x509.Certificate) {
		template.Subject.CommonName, template.OCSPServer = common, servers
	})
}

// certified returns a signer whose certificate is as odd as it is made.
func (n *notary) certified(t *testing.T, change func(*x509.Certificate)) *notary {
	t.Helper()
	other := &notary{root: n.root, top: n.top, pair: newPair(t)}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(3),
		Subject:      pkix.Name{Country: []string{"US"}, Province: []string{"WA"}, Organization: []string{"Notary"}, CommonName: "release"},
		NotBefore:    time.Now().Add(-12 * time.Hour), NotAfter: time.Now().Add(12 * time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning},
		BasicConstraintsValid: true,
	}
	change(template)
	other.leaf = issue(t, template, n.root, other.pair.private.Public(), n.top)
	return other
}

// policy is a trust policy of one level for one who signs.
func policy(t *testing.T, level string, change func(statement map[string]any)) []byte {
	t.Helper()
	statement := map[string]any{
		"name": "all", "registryScopes": []string{"*"},
		"signatureVerification": map[string]any{"level": level},
		"trustStores":           []string{"ca:any"},
		"trustedIdentities":     []string{"x509.subject: C=US, ST=WA, O=Notary, CN=release"},
	}
	if change != nil {
		change(statement)
	}
	text, err := json.Marshal(map[string]any{"version": "1.0", "trustPolicies": []any{statement}})
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	return text
}

func (n *notary) pem() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: n.root.Raw})
}

// demand is one for signatures that the policy accepts.
func (n *notary) demand(policy []byte) trust.Demand {
	return trust.Demand{Provider: trust.ProviderNotation, Secret: &trust.Secret{Name: "apps/notation", Data: map[string][]byte{
		"trustpolicy.json": policy, "ca.crt": n.pem(),
	}}}
}

// notationOptions say what is unusual about a signature.
type notationOptions struct {
	mediaType   string // empty: JWS
	target      v1.Descriptor
	expired     bool
	payloadType string    // empty: that of signatures
	at          time.Time // zero: now
}

// sign makes an envelope.
func (n *notary) sign(t *testing.T, options notationOptions) []byte {
	t.Helper()
	g := NewWithT(t)
	signer, err := coresignature.NewLocalSigner([]*x509.Certificate{n.leaf, n.root}, n.pair.private)
	g.Expect(err).NotTo(HaveOccurred())
	content, err := json.Marshal(map[string]any{"targetArtifact": map[string]any{
		"mediaType": options.target.MediaType, "digest": options.target.Digest.String(), "size": options.target.Size,
	}})
	g.Expect(err).NotTo(HaveOccurred())
	request := &coresignature.SignRequest{
		Payload: coresignature.Payload{ContentType: cmp.Or(options.payloadType, "application/vnd.cncf.notary.payload.v1+json"), Content: content},
		Signer:  signer, SigningTime: cmp.Or(options.at, time.Now()), SigningScheme: coresignature.SigningSchemeX509,
	}
	if options.expired {
		request.SigningTime = time.Now().Add(-time.Hour)
		request.Expiry = time.Now().Add(-time.Minute)
	}
	if options.mediaType == "" {
		options.mediaType = jws.MediaTypeEnvelope
	}
	envelope, err := coresignature.NewEnvelope(options.mediaType)
	g.Expect(err).NotTo(HaveOccurred())
	signed, err := envelope.Sign(request)
	g.Expect(err).NotTo(HaveOccurred())
	return signed
}

// attachNotation stores an envelope as the notation command does.
func (i *image) attachNotation(t *testing.T, envelope []byte, mediaType types.MediaType) {
	t.Helper()
	i.put(t, i.notationManifest(t, envelope, mediaType))
}

// notationManifest is the manifest of an envelope.
func (i *image) notationManifest(t *testing.T, envelope []byte, mediaType types.MediaType) map[string]any {
	t.Helper()
	if mediaType == "" {
		mediaType = jws.MediaTypeEnvelope
	}
	manifest := i.referrer(t, "", i.blob(t, envelope, mediaType))
	delete(manifest, "artifactType")
	manifest["config"] = i.blob(t, []byte("{}"), notationArtifact)
	return manifest
}

func TestLevelsOfATrustPolicy(t *testing.T) {
	trusted := newNotary(t, "release")
	evil := newNotary(t, "release")
	for name, c := range map[string]struct {
		level   string
		change  func(map[string]any)
		by      *notary
		expired bool
		verdict trust.Verdict
		verifies,
		strict bool
		words string
	}{
		"strict accepts the trusted signer":                    {level: "strict", by: trusted, verdict: trust.Accepted, verifies: true},
		"strict refuses a stranger":                            {level: "strict", by: evil, verdict: trust.Rejected, words: "does not trust"},
		"strict refuses what has expired":                      {level: "strict", by: trusted, expired: true, verdict: trust.Rejected, words: "not valid any more"},
		"permissive accepts what has expired":                  {level: "permissive", by: trusted, expired: true, verdict: trust.Accepted, verifies: true},
		"permissive refuses a stranger":                        {level: "permissive", by: evil, verdict: trust.Rejected, words: "does not trust"},
		"audit publishes a stranger's and says nobody signed":  {level: "audit", by: evil, verdict: trust.Accepted},
		"audit publishes a good one and says nobody signed":    {level: "audit", by: trusted, verdict: trust.Accepted},
		"audit refuses what is not signed at all":              {level: "audit", verdict: trust.Rejected, words: "not signed"},
		"skip publishes what is not signed":                    {level: "skip", verdict: trust.Accepted},
		"audit is a failure under the rule of an admin":        {level: "audit", by: trusted, strict: true, verdict: trust.Rejected, words: `"audit"`},
		"skip is a failure under the rule of an admin":         {level: "skip", by: trusted, strict: true, verdict: trust.Rejected, words: `"skip"`},
		"strict with authenticity only logged is no proof":     {level: "strict", change: override("authenticity", "log"), by: evil, verdict: trust.Accepted},
		"audit with authenticity enforced is one":              {level: "audit", change: override("authenticity", "enforce"), by: trusted, strict: true, verdict: trust.Accepted, verifies: true},
		"a policy for other repositories is for nobody's here": {level: "strict", change: scope("example.com/other"), by: trusted, verdict: trust.Rejected, words: "registryScopes"},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			i := push(t, serve(t, true), name)
			if c.by != nil {
				i.attachNotation(t, c.by.sign(t, notationOptions{target: i.descriptor, expired: c.expired}), "")
			}
			authority, err := trust.NewAuthority(trusted.demand(policy(t, c.level, c.change)), trust.Options{})
			g.Expect(err).NotTo(HaveOccurred())
			r := rule(authority)
			r.Strict = c.strict
			verified, err := i.verifyBy(t, r)
			if c.verdict != trust.Accepted {
				expectDenied(g, err, c.verdict, c.words)
				return
			}
			g.Expect(err).NotTo(HaveOccurred())
			g.Expect(verified.By() != "").To(Equal(c.verifies), verified.By())
			if c.verifies {
				g.Expect(verified.By()).To(ContainSubstring("CN=release"))
			} else {
				g.Expect(verified.Rulings()[0].String()).To(ContainSubstring("only logs"))
			}
		})
	}
	expectNoStrangers(NewWithT(t))
}

func override(check, action string) func(map[string]any) {
	return func(statement map[string]any) {
		verification := statement["signatureVerification"].(map[string]any)
		verification["override"] = map[string]any{check: action}
	}
}

func scope(repository string) func(map[string]any) {
	return func(statement map[string]any) { statement["registryScopes"] = []string{repository} }
}

// TestACertificateThatHasExpired holds that what was signed while a certificate
// was valid is refused when it is not any more: without a timestamp nobody knows
// when that was.
func TestACertificateThatHasExpired(t *testing.T) {
	g := NewWithT(t)
	by := newNotary(t, "release").certified(t, func(template *x509.Certificate) { template.NotAfter = time.Now().Add(-time.Hour) })
	i := push(t, serve(t, true), "expired")
	i.attachNotation(t, by.sign(t, notationOptions{target: i.descriptor, at: time.Now().Add(-2 * time.Hour)}), "")
	_, err := i.verify(t, by.demand(policy(t, "strict", nil)))
	expectDenied(g, err, trust.Rejected, "that is not valid any more")
	_, err = i.verify(t, by.demand(policy(t, "permissive", nil)))
	g.Expect(err).NotTo(HaveOccurred(), "that level only logs it")
}

func TestWhatATrustPolicyMustBring(t *testing.T) {
	good := newNotary(t, "release")
	for name, c := range map[string]struct {
		data  map[string][]byte
		words string
	}{
		"no trust policy":                 {map[string][]byte{"ca.crt": good.pem()}, "no entry trustpolicy.json"},
		"a trust policy that is no JSON":  {map[string][]byte{"trustpolicy.json": []byte("{"), "ca.crt": good.pem()}, "is not a trust policy"},
		"a trust policy without a level":  {map[string][]byte{"trustpolicy.json": policy(t, "", nil), "ca.crt": good.pem()}, "not a valid trust policy"},
		"no certificate":                  {map[string][]byte{"trustpolicy.json": policy(t, "strict", nil)}, "no usable certificate"},
		"only a malformed certificate":    {map[string][]byte{"trustpolicy.json": policy(t, "strict", nil), "ca.pem": []byte("no")}, `"ca.pem"`},
		"a private key for a certificate": {map[string][]byte{"trustpolicy.json": policy(t, "strict", nil), "ca.pem": pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: []byte("x")})}, "no usable certificate"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := trust.NewAuthority(trust.Demand{Provider: trust.ProviderNotation, Secret: &trust.Secret{Name: "apps/notation", Data: c.data}}, trust.Options{})
			expectDenied(NewWithT(t), err, trust.Rejected, c.words)
		})
	}
	t.Run("a malformed certificate beside a good one is noted, and hides nothing", func(t *testing.T) {
		g := NewWithT(t)
		demand := good.demand(policy(t, "strict", nil))
		before, err := trust.NewAuthority(demand, trust.Options{})
		g.Expect(err).NotTo(HaveOccurred())
		demand.Secret.Data["bad.pem"] = []byte("no")
		authority, err := trust.NewAuthority(demand, trust.Options{})
		g.Expect(err).NotTo(HaveOccurred())
		g.Expect(authority.Notes()).To(ConsistOf(ContainSubstring("bad.pem")))
		g.Expect(authority.Fingerprint()).To(Equal(before.Fingerprint()))
	})
	t.Run("a certificate in DER is one too", func(t *testing.T) {
		g := NewWithT(t)
		demand := good.demand(policy(t, "strict", nil))
		demand.Secret.Data["ca.crt"] = good.root.Raw
		authority, err := trust.NewAuthority(demand, trust.Options{})
		g.Expect(err).NotTo(HaveOccurred())
		g.Expect(authority.Notes()).To(BeEmpty())
	})
}

// TestATimestampAuthorityVouchesForNoSigner holds that who says when something was
// signed is not believed about who signed it.
func TestATimestampAuthorityVouchesForNoSigner(t *testing.T) {
	signer, stamper := newNotary(t, "release"), newNotary(t, "release")
	stores := func(names ...string) []byte {
		return policy(t, "strict", func(statement map[string]any) {
			statement["trustStores"] = names
			statement["signatureVerification"] = map[string]any{"level": "strict", "verifyTimestamp": "afterCertExpiry"}
		})
	}
	for name, c := range map[string]struct {
		by     *notary
		policy []byte
		data   map[string][]byte
		words  string // why not; empty: it is accepted
	}{
		"the signer's own authority, beside that of timestamps": {signer, stores("ca:any", "tsa:any"), map[string][]byte{"ca.crt": signer.pem(), "tsa.crt": stamper.pem()}, ""},
		"the authority of timestamps, beside the signer's own":  {stamper, stores("ca:any", "tsa:any"), map[string][]byte{"ca.crt": signer.pem(), "tsa.crt": stamper.pem()}, "does not trust"},
		"by the beginning of a name and by either end":          {stamper, stores("ca:any", "tsa:any"), map[string][]byte{"ca.crt": signer.pem(), "tsa-of-digicert.pem": stamper.pem()}, "does not trust"},
		"the two changed places":                                {stamper, stores("ca:any", "tsa:any"), map[string][]byte{"tsa.crt": signer.pem(), "ca.crt": stamper.pem()}, ""},
		"nobody but the authority of timestamps":                {stamper, stores("ca:any", "tsa:any"), map[string][]byte{"tsa.crt": stamper.pem()}, "no usable certificate"},
		"no store of timestamps, so that a name says nothing":   {stamper, stores("ca:any"), map[string][]byte{"ca.crt": signer.pem(), "tsa.crt": stamper.pem()}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			i := push(t, serve(t, true), "app")
			i.attachNotation(t, c.by.sign(t, notationOptions{target: i.descriptor}), "")
			c.data["trustpolicy.json"] = c.policy
			_, err := i.verify(t, trust.Demand{Provider: trust.ProviderNotation, Secret: &trust.Secret{Name: "apps/notation", Data: c.data}})
			if c.words == "" {
				g.Expect(err).NotTo(HaveOccurred())
				return
			}
			expectDenied(g, err, trust.Rejected, c.words)
		})
	}
	printOf := func(data map[string][]byte) string {
		authority, err := trust.NewAuthority(trust.Demand{Provider: trust.ProviderNotation, Secret: &trust.Secret{Data: data}}, trust.Options{})
		NewWithT(t).Expect(err).NotTo(HaveOccurred())
		return authority.Fingerprint()
	}
	both := stores("ca:any", "tsa:any")
	one := printOf(map[string][]byte{"trustpolicy.json": both, "ca.crt": signer.pem(), "tsa.crt": stamper.pem()})
	NewWithT(t).Expect(printOf(map[string][]byte{"trustpolicy.json": both, "tsa.crt": signer.pem(), "ca.crt": stamper.pem()})).NotTo(Equal(one))
	NewWithT(t).Expect(printOf(map[string][]byte{"trustpolicy.json": both, "a.crt": signer.pem(), "tsa-2.pem": stamper.pem()})).To(Equal(one))
}

// hub is a repository that goes by a name of Docker Hub.
type hub struct{ *registry.Repository }

func (hub) Name() string { return "index.docker.io/org/app" }

// TestTheNameThatNotationHasForDockerHub holds that a policy made for the notation
// command, which calls Docker Hub docker.io, counts here.
func TestTheNameThatNotationHasForDockerHub(t *testing.T) {
	n := newNotary(t, "release")
	statement := func(name, scope, by string) map[string]any {
		return map[string]any{
			"name": name, "registryScopes": []string{scope}, "signatureVerification": map[string]any{"level": "strict"},
			"trustStores": []string{"ca:any"}, "trustedIdentities": []string{"x509.subject: C=US, ST=WA, O=Notary, CN=" + by},
		}
	}
	for name, c := range map[string]struct {
		statements []any
		accepted   bool
	}{
		"as notation has it":                   {[]any{statement("hub", "docker.io/org/app", "release")}, true},
		"as it is canonical":                   {[]any{statement("hub", "index.docker.io/org/app", "release")}, true},
		"more to the point than all":           {[]any{statement("hub", "docker.io/org/app", "release"), statement("all", "*", "nobody")}, true},
		"it does not reach into what is named": {[]any{statement("hub", "docker.io/org/app", "nobody"), statement("all", "*", "release")}, false},
		"the canonical before the other":       {[]any{statement("hub", "docker.io/org/app", "nobody"), statement("index", "index.docker.io/org/app", "release")}, true},
		"another repository":                   {[]any{statement("hub", "docker.io/org/other", "release")}, false},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			i := push(t, serve(t, true), "app")
			i.attachNotation(t, n.sign(t, notationOptions{target: i.descriptor}), "")
			text, err := json.Marshal(map[string]any{"version": "1.0", "trustPolicies": c.statements})
			g.Expect(err).NotTo(HaveOccurred())
			demand := n.demand(text)
			authority, err := trust.NewAuthority(demand, trust.Options{})
			g.Expect(err).NotTo(HaveOccurred())
			repository := hub{i.open(t, registry.Access{})}
			_, err = trust.NewRules(repository, rule(authority)).Verify(t.Context(), trust.Subject{Repository: repository.Name(), Digest: i.digest})
			if c.accepted {
				g.Expect(err).NotTo(HaveOccurred())
			} else {
				expectDenied(g, err, trust.Rejected)
			}
		})
	}
}

// Settings of cosign beside Notation demand nothing, and a note says so.
func TestSettingsOfCosignAreNotUsedForNotation(t *testing.T) {
	for name, c := range map[string]struct {
		change func(d *trust.Demand)
		noted  bool
	}{
		"none":           {func(*trust.Demand) {}, false},
		"identities":     {func(d *trust.Demand) { d.Identities = []trust.Identity{{Issuer: "^i$", Subject: "^s$"}} }, true},
		"a trusted root": {func(d *trust.Demand) { d.TrustedRoot = &trust.Secret{Name: "apps/root"} }, true},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			demand := newNotary(t, "any").demand(policy(t, "strict", nil))
			c.change(&demand)
			authority, err := trust.NewAuthority(demand, trust.Options{})
			g.Expect(err).NotTo(HaveOccurred())
			noted := ContainElement(ContainSubstring("they are for cosign"))
			if !c.noted {
				noted = Not(noted)
			}
			g.Expect(authority.Notes()).To(noted)
		})
	}
}

// TestAFalseHeaderDoesNotRejectWhatIsSigned has a manifest that does not name its type
// sent with another type than the one that its signature covers.
func TestAFalseHeaderDoesNotRejectWhatIsSigned(t *testing.T) {
	for _, header := range []types.MediaType{types.DockerManifestSchema2, "binary/octet-stream"} {
		t.Run(string(header), func(t *testing.T) {
			g := NewWithT(t)
			s := serve(t, true)
			i := push(t, s, "x")
			body, err := json.Marshal(map[string]any{
				"schemaVersion": 2, "config": i.blob(t, []byte("{}"), types.OCIConfigJSON),
				"layers": []v1.Descriptor{i.blob(t, []byte("x"), "application/vnd.example")},
			})
			g.Expect(err).NotTo(HaveOccurred())
			i.descriptor = v1.Descriptor{MediaType: types.OCIManifestSchema1}
			i.descriptor.Digest, i.descriptor.Size, err = v1.SHA256(bytes.NewReader(body))
			g.Expect(err).NotTo(HaveOccurred())
			i.digest = i.descriptor.Digest
			g.Expect(remote.Put(i.repository.Digest(i.digest.String()), raw{body: body, mediaType: header})).To(Succeed())
			notary := newNotary(t, "release")
			i.attachNotation(t, notary.sign(t, notationOptions{target: i.descriptor}), "")
			_, err = i.verify(t, notary.demand(policy(t, "strict", nil)))
			g.Expect(err).NotTo(HaveOccurred())
		})
	}
}
