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
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"maps"
	"math/big"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/notaryproject/notation-core-go/signature/cose"
	. "github.com/onsi/gomega"
	protobundle "github.com/sigstore/protobuf-specs/gen/pb-go/bundle/v1"
	protocommon "github.com/sigstore/protobuf-specs/gen/pb-go/common/v1"
	protorekor "github.com/sigstore/protobuf-specs/gen/pb-go/rekor/v1"
	gocose "github.com/veraison/go-cose"

	"github.com/image-source/image-source-controller/api/v1alpha1"
	"github.com/image-source/image-source-controller/pkg/fault"
	"github.com/image-source/image-source-controller/pkg/trust"
)

// hugeBits is the size of keys that are refused. One verification with a key of a
// million bits takes more than a minute, with one of this size less than a second.
const hugeBits = 1 << 16

const tooLarge = "an RSA key of 65536 bits, expected 1024 to 8192"

// rsaOf returns an RSA key whose modulus has a number of bits.
func rsaOf(bits int) *rsa.PublicKey {
	modulus := new(big.Int).Lsh(big.NewInt(1), uint(bits-1))
	return &rsa.PublicKey{N: modulus.SetBit(modulus, 0, 1), E: 65537}
}

func publicPEM(t testing.TB, public crypto.PublicKey) []byte {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
}

func certificatePEM(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

// hugeCertificate is issued by an authority that vouches for all.
func hugeCertificate(t *testing.T, s *sigstore) []byte {
	t.Helper()
	template := *s.leaf(t, leafOptions{}).certificate
	template.SignatureAlgorithm, template.PublicKey = 0, nil
	return issue(t, &template, s.intermediate, rsaOf(hugeBits), s.signer).Raw
}

func TestExpressionsAreBounded(t *testing.T) {
	for name, c := range map[string]struct {
		expression string
		words      string // empty: it is accepted
	}{
		"the workflow of a repository":            {`^https://github\.com/org/repo/\.github/workflows/release\.ya?ml@refs/tags/v[0-9]+(\.[0-9]+){2}$`, ""},
		"a digest":                                {`sha256:[0-9a-f]{64}`, ""},
		"alternatives without brackets":           {`https://a|https://b`, ""},
		"1024 characters":                         {strings.Repeat("a", 1024), ""},
		"1025 characters":                         {strings.Repeat("a", 1025), "has 1025 bytes, expected at most 1024"},
		"a quotation without an end":              {`\Qhttps://x`, "not a regular expression"},
		"a quotation that ends":                   {`\Qhttps://x\E`, ""},
		"one that ends the brackets":              {`a)|(?:b`, "not a regular expression"},
		"a thousand characters of any kind":       {`.{1000}`, ""},
		"repetitions beside each other":           {strings.Repeat(`.{1000}`, 146), "too complex"},
		"a repetition of many characters":         {`(?:` + strings.Repeat("a", 900) + `){1000}`, "too complex"},
		"repetitions inside of each other":        {`((a{10}){10}){10}b{10}(c{990}|d{990})`, "too complex"},
		"an optional repetition":                  {`(a?){999}(b?){999}`, "too complex"},
		"classes with many ranges":                {strings.Repeat(`\pL`, 340), "too complex"},
		"classes with many ranges in either case": {`(?i)` + strings.Repeat(`\pL`, 340), "too complex"},
		"one class of hundreds":                   {`[` + strings.Repeat(`\PL`, 340) + `]`, "has 340 classes of Unicode, expected at most 16"},
		"ranges beyond ASCII in either case":      {`(?i)[` + strings.Repeat("B-\U0001e942", 169) + `]`, "beyond ASCII"},
		"ranges of numbers in either case":        {`(?s-U:(?m-s:(?mi:[` + strings.Repeat(`B-\x{1e942}`, 80) + `])))`, "beyond ASCII"},
		"a name beyond ASCII in either case":      {`(?i)^m\x{fc}ller@EXÄMPLE\.com$`, ""},
		"a few classes":                           {`^[\p{L}\p{N}_-]+/[\p{L}\p{N}_-]+$`, ""},
	} {
		for _, field := range []string{"issuer", "subject"} {
			t.Run(name+" as "+field, func(t *testing.T) {
				g := NewWithT(t)
				identity := trust.Identity{Issuer: c.expression, Subject: "x"}
				if field == "subject" {
					identity = trust.Identity{Issuer: "x", Subject: c.expression}
				}
				_, err := trust.NewAuthority(keylessBy(identity), trust.Options{})
				if c.words == "" {
					g.Expect(err).NotTo(HaveOccurred())
					return
				}
				g.Expect(err).To(MatchError(And(ContainSubstring(c.words), ContainSubstring(field))))
				g.Expect(fault.Of(err, "").Reason).To(Equal(v1alpha1.ReasonInvalidSpec))
				g.Expect(fault.Of(err, "").Class).To(Equal(fault.Stall))
			})
		}
	}
	t.Run("their number", func(t *testing.T) {
		g := NewWithT(t)
		identities := make([]trust.Identity, 17)
		for i := range identities {
			identities[i] = trust.Identity{Issuer: "x", Subject: fmt.Sprint(i)}
		}
		_, err := trust.NewAuthority(keylessBy(identities[:16]...), trust.Options{})
		g.Expect(err).NotTo(HaveOccurred())
		_, err = trust.NewAuthority(keylessBy(identities...), trust.Options{})
		g.Expect(err).To(MatchError(ContainSubstring("17 entries, expected at most 16")))
		g.Expect(fault.Of(err, "").Reason).To(Equal(v1alpha1.ReasonInvalidSpec))
	})
}

// TestKeysInSecretsAreBounded holds that a key is refused before anything is verified
// with it, in each entry of each Secret.
func TestKeysInSecretsAreBounded(t *testing.T) {
	s, by := newSigstore(t), newPair(t)
	p224, err := ecdsa.GenerateKey(elliptic.P224(), rand.Reader)
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	rootWith := func(old, now []byte) []byte {
		text := s.trustedRoot(t, lists{log: true, stamps: true})
		replaced := bytes.Replace(text, []byte(base64.StdEncoding.EncodeToString(old)), []byte(base64.StdEncoding.EncodeToString(now)), 1)
		NewWithT(t).Expect(replaced).NotTo(Equal(text))
		return replaced
	}
	notary := newNotary(t, "release")
	cosign := keys
	rooted := func(data map[string][]byte) trust.Demand {
		demand := s.identities(t, lists{log: true})
		demand.TrustedRoot.Data = data
		return demand
	}
	notation := func(data map[string][]byte) trust.Demand {
		data["trustpolicy.json"] = policy(t, "strict", nil)
		return trust.Demand{Provider: trust.ProviderNotation, Secret: &trust.Secret{Name: "apps/notation", Data: data}}
	}
	huge := hugeCertificate(t, s)
	for name, c := range map[string]struct {
		demand trust.Demand
		words  string
	}{
		"a public key":                      {cosign(map[string][]byte{"a.pub": publicPEM(t, rsaOf(hugeBits))}), tooLarge},
		"a public key on another curve":     {cosign(map[string][]byte{"a.pub": publicPEM(t, p224.Public())}), "P-224"},
		"a certificate":                     {notation(map[string][]byte{"ca.crt": certificatePEM(huge)}), tooLarge},
		"a certificate behind another":      {notation(map[string][]byte{"ca.crt": append(notary.pem(), certificatePEM(huge)...)}), tooLarge},
		"a certificate in DER":              {notation(map[string][]byte{"ca.crt": huge}), tooLarge},
		"an authority of a trusted root":    {rooted(map[string][]byte{"trusted_root.json": rootWith(s.root.Raw, huge)}), tooLarge},
		"an intermediate of a trusted root": {rooted(map[string][]byte{"trusted_root.json": rootWith(s.intermediate.Raw, huge)}), tooLarge},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := trust.NewAuthority(c.demand, trust.Options{})
			expectDenied(NewWithT(t), err, trust.Rejected, c.words)
		})
	}
	t.Run("a large key hides no other", func(t *testing.T) {
		g := NewWithT(t)
		i := push(t, serve(t, true), "app")
		i.signBundle(t, by)
		i.attachLegacy(t, claim(t, i, i.digest), make([]byte, hugeBits/8))
		demand := cosign(map[string][]byte{"a.pub": publicPEM(t, rsaOf(hugeBits)), "b.pub": by.pem(t)})
		authority, err := trust.NewAuthority(demand, trust.Options{})
		g.Expect(err).NotTo(HaveOccurred())
		g.Expect(authority.Notes()).To(ConsistOf(And(ContainSubstring("a.pub"), ContainSubstring(tooLarge))))
		_, err = i.verify(t, demand)
		g.Expect(err).NotTo(HaveOccurred())
	})
}

// TestKeysInSignaturesAreBounded holds the same for what anybody may push. Some
// decoders verify signatures with the keys that stand beside them.
func TestKeysInSignaturesAreBounded(t *testing.T) {
	s, notary := newSigstore(t), newNotary(t, "release")
	huge := hugeCertificate(t, s)
	byIdentity := s.identities(t, lists{log: true})
	bundled := func(i *image, change func(*protobundle.Bundle)) {
		bundle, _ := enveloped(t, newPair(t), statement(t, i.digest, signPredicate))
		bundle.VerificationMaterial = &protobundle.VerificationMaterial{Content: &protobundle.VerificationMaterial_PublicKey{PublicKey: &protocommon.PublicKeyIdentifier{}}}
		change(bundle)
		i.attachBundle(t, encoded(t, bundle))
	}
	entry := func(kind string, public any) []byte {
		text, err := json.Marshal(map[string]any{"apiVersion": "0.0.1", "kind": kind, "spec": map[string]any{
			"data":      map[string]any{"hash": map[string]any{"algorithm": "sha256", "value": strings.Repeat("ab", 32)}},
			"signature": map[string]any{"content": make([]byte, hugeBits/8), "publicKey": map[string]any{"content": public}},
		}})
		NewWithT(t).Expect(err).NotTo(HaveOccurred())
		return text
	}
	logged := func(body []byte) func(*testing.T, *image) {
		return func(_ *testing.T, i *image) {
			bundled(i, func(b *protobundle.Bundle) {
				b.VerificationMaterial.TlogEntries = []*protorekor.TransparencyLogEntry{{CanonicalizedBody: body}}
			})
		}
	}
	for name, c := range map[string]struct {
		demand trust.Demand
		attach func(*testing.T, *image)
		words  string
	}{
		"a legacy signature": {byIdentity, func(t *testing.T, i *image) {
			t.Helper()
			i.attachAnnotated(t, map[string]string{"dev.sigstore.cosign/certificate": string(certificatePEM(huge))})
		}, tooLarge},
		"the chain of a legacy signature": {byIdentity, func(t *testing.T, i *image) {
			t.Helper()
			i.attachAnnotated(t, map[string]string{
				"dev.sigstore.cosign/certificate": string(certificatePEM(s.leaf(t, leafOptions{}).certificate.Raw)),
				"dev.sigstore.cosign/chain":       string(certificatePEM(huge)),
			})
		}, tooLarge},
		"the timestamp of a legacy signature": {byIdentity, func(t *testing.T, i *image) {
			t.Helper()
			stamp, err := json.Marshal(map[string]any{"SignedRFC3161Timestamp": huge})
			NewWithT(t).Expect(err).NotTo(HaveOccurred())
			i.attachAnnotated(t, map[string]string{"dev.sigstore.cosign/rfc3161timestamp": string(stamp)})
		}, tooLarge},
		"the log entry of a legacy signature": {byIdentity, func(t *testing.T, i *image) {
			t.Helper()
			text, err := json.Marshal(map[string]any{"Payload": map[string]any{"body": entry("hashedrekord", certificatePEM(huge))}})
			NewWithT(t).Expect(err).NotTo(HaveOccurred())
			i.attachAnnotated(t, map[string]string{"dev.sigstore.cosign/bundle": string(text)})
		}, tooLarge},
		"a bundle": {byIdentity, func(_ *testing.T, i *image) {
			bundled(i, func(b *protobundle.Bundle) {
				b.VerificationMaterial.Content = &protobundle.VerificationMaterial_Certificate{Certificate: &protocommon.X509Certificate{RawBytes: huge}}
			})
		}, tooLarge},
		"the timestamp of a bundle": {byIdentity, func(_ *testing.T, i *image) {
			bundled(i, func(b *protobundle.Bundle) {
				b.VerificationMaterial.TimestampVerificationData = &protobundle.TimestampVerificationData{
					Rfc3161Timestamps: []*protocommon.RFC3161SignedTimestamp{{SignedTimestamp: huge}},
				}
			})
		}, tooLarge},
		"five timestamps of a bundle": {byIdentity, func(_ *testing.T, i *image) {
			bundled(i, func(b *protobundle.Bundle) {
				b.VerificationMaterial.TimestampVerificationData = &protobundle.TimestampVerificationData{}
				for range 5 {
					b.VerificationMaterial.TimestampVerificationData.Rfc3161Timestamps = append(b.VerificationMaterial.TimestampVerificationData.Rfc3161Timestamps, &protocommon.RFC3161SignedTimestamp{})
				}
			})
		}, "comes with 5 timestamps, expected at most 4"},
		"a log entry with a certificate":  {byIdentity, logged(entry("hashedrekord", certificatePEM(huge))), tooLarge},
		"a log entry with a key":          {byIdentity, logged(entry("dsse", publicPEM(t, rsaOf(hugeBits)))), tooLarge},
		"a log entry in another encoding": {byIdentity, logged(entry("intoto", []byte(base64.StdEncoding.EncodeToString(huge)))), tooLarge},
		"a log entry of another kind":     {byIdentity, logged(entry("rekord", "")), `of the kind "rekord"`},
		"a JWS": {notary.demand(policy(t, "strict", nil)), func(t *testing.T, i *image) {
			t.Helper()
			var envelope map[string]any
			g := NewWithT(t)
			g.Expect(json.Unmarshal(notary.sign(t, notationOptions{target: i.descriptor}), &envelope)).To(Succeed())
			envelope["header"].(map[string]any)["x5c"] = [][]byte{huge}
			text, err := json.Marshal(envelope)
			g.Expect(err).NotTo(HaveOccurred())
			i.attachNotation(t, text, "")
		}, tooLarge},
		"a COSE": {notary.demand(policy(t, "strict", nil)), func(t *testing.T, i *image) {
			t.Helper()
			i.attachNotation(t, recose(t, notary.sign(t, notationOptions{target: i.descriptor, mediaType: cose.MediaTypeEnvelope}), func(headers *gocose.Headers) {
				headers.Unprotected[gocose.HeaderLabelX5Chain] = []any{huge}
			}), cose.MediaTypeEnvelope)
		}, tooLarge},
		"the timestamp of a COSE": {notary.demand(policy(t, "strict", nil)), func(t *testing.T, i *image) {
			t.Helper()
			i.attachNotation(t, recose(t, notary.sign(t, notationOptions{target: i.descriptor, mediaType: cose.MediaTypeEnvelope}), func(headers *gocose.Headers) {
				headers.Unprotected["io.cncf.notary.timestampSignature"] = huge
			}), cose.MediaTypeEnvelope)
		}, tooLarge},
		"a JWS of many headers": {notary.demand(policy(t, "strict", nil)), func(t *testing.T, i *image) {
			t.Helper()
			var envelope map[string]any
			g := NewWithT(t)
			g.Expect(json.Unmarshal(notary.sign(t, notationOptions{target: i.descriptor}), &envelope)).To(Succeed())
			envelope["protected"] = base64.RawURLEncoding.EncodeToString([]byte(`{"crit":["a"` + strings.Repeat(`,"a"`, 500) + `]}`))
			text, err := json.Marshal(envelope)
			g.Expect(err).NotTo(HaveOccurred())
			i.attachNotation(t, text, "")
		}, "the protected header has more than the 500 JSON values"},
		"a COSE of many headers": {notary.demand(policy(t, "strict", nil)), func(t *testing.T, i *image) {
			t.Helper()
			i.attachNotation(t, recose(t, notary.sign(t, notationOptions{target: i.descriptor, mediaType: cose.MediaTypeEnvelope}), func(headers *gocose.Headers) {
				for label := range int64(101) {
					headers.Protected[1000+label] = label
				}
			}), cose.MediaTypeEnvelope)
		}, "protected or critical headers, expected at most 100"},
		"a COSE with critical headers over and over": {notary.demand(policy(t, "strict", nil)), func(t *testing.T, i *image) {
			t.Helper()
			i.attachNotation(t, recose(t, notary.sign(t, notationOptions{target: i.descriptor, mediaType: cose.MediaTypeEnvelope}), func(headers *gocose.Headers) {
				headers.Protected[gocose.HeaderLabelCritical] = slices.Repeat(headers.Protected[gocose.HeaderLabelCritical].([]any), 101)
			}), cose.MediaTypeEnvelope)
		}, "protected or critical headers, expected at most 100"},
		"a chain of 17 certificates": {notary.demand(policy(t, "strict", nil)), func(t *testing.T, i *image) {
			t.Helper()
			i.attachNotation(t, recose(t, notary.sign(t, notationOptions{target: i.descriptor, mediaType: cose.MediaTypeEnvelope}), func(headers *gocose.Headers) {
				chain := headers.Unprotected[gocose.HeaderLabelX5Chain].([]any)
				for len(chain) < 17 {
					chain = append(chain, notary.root.Raw)
				}
				headers.Unprotected[gocose.HeaderLabelX5Chain] = chain
			}), cose.MediaTypeEnvelope)
		}, "17 certificates, expected at most 16"},
		"the timestamp of a JWS": {notary.demand(policy(t, "strict", nil)), func(t *testing.T, i *image) {
			t.Helper()
			var envelope map[string]any
			g := NewWithT(t)
			g.Expect(json.Unmarshal(notary.sign(t, notationOptions{target: i.descriptor}), &envelope)).To(Succeed())
			envelope["header"].(map[string]any)["io.cncf.notary.timestampSignature"] = huge
			text, err := json.Marshal(envelope)
			g.Expect(err).NotTo(HaveOccurred())
			i.attachNotation(t, text, "")
		}, tooLarge},
	} {
		t.Run(name, func(t *testing.T) {
			i := push(t, serve(t, true), name)
			c.attach(t, i)
			_, err := i.verify(t, c.demand)
			expectDenied(NewWithT(t), err, trust.Rejected, "that cannot be read", c.words)
		})
	}
}

// TestSignaturesInsideOfSignaturesAreBounded holds that nobody can bring along thousands
// of signatures to verify, be it with keys of their own.
func TestSignaturesInsideOfSignaturesAreBounded(t *testing.T) {
	by := newPair(t)
	demand := keys(map[string][]byte{"cosign.pub": by.pem(t)})
	envelope := `{"payload":"e30=","payloadType":"x","signatures":[{"sig":"MAYCAQECAQE="}]}`
	bundled := func(change func(*protobundle.Bundle)) func(*testing.T, *image) {
		return func(t *testing.T, i *image) {
			t.Helper()
			bundle, _ := enveloped(t, newPair(t), statement(t, i.digest, signPredicate))
			bundle.VerificationMaterial = &protobundle.VerificationMaterial{Content: &protobundle.VerificationMaterial_PublicKey{PublicKey: &protocommon.PublicKeyIdentifier{}}}
			change(bundle)
			i.attachBundle(t, encoded(t, bundle))
		}
	}
	t.Run("an envelope with two signatures", func(t *testing.T) {
		i := push(t, serve(t, true), "app")
		bundled(func(b *protobundle.Bundle) {
			e := b.GetDsseEnvelope()
			e.Signatures = append(e.GetSignatures(), e.GetSignatures()...)
		})(t, i)
		_, err := i.verify(t, demand)
		expectDenied(NewWithT(t), err, trust.Rejected, "that cannot be read", "its envelope has 2 signatures")
	})
	t.Run("a checkpoint with very many signatures", func(t *testing.T) {
		i := push(t, serve(t, true), "app")
		bundled(func(b *protobundle.Bundle) {
			b.VerificationMaterial.TlogEntries = []*protorekor.TransparencyLogEntry{{
				CanonicalizedBody: []byte(`{"kind":"dsse"}`),
				InclusionProof:    &protorekor.InclusionProof{Checkpoint: &protorekor.Checkpoint{Envelope: "log\n\n" + strings.Repeat("— log MDAwMDA=\n", 1000)}},
			}}
		})(t, i)
		_, err := i.verify(t, demand)
		expectDenied(NewWithT(t), err, trust.Rejected, "that cannot be read", "a checkpoint of", "expected at most 16384")
	})
	for name, spec := range map[string]any{
		"dsse 0.0.1":   map[string]any{"proposedContent": map[string]any{"envelope": envelope, "verifiers": [][]byte{by.pem(t)}}},
		"intoto 0.0.1": map[string]any{"content": map[string]any{"envelope": envelope}, "publicKey": by.pem(t)},
		"intoto 0.0.2": map[string]any{"content": map[string]any{"envelope": json.RawMessage(envelope)}},
	} {
		kind, version, _ := strings.Cut(name, " ")
		body, err := json.Marshal(map[string]any{"apiVersion": version, "kind": kind, "spec": spec})
		NewWithT(t).Expect(err).NotTo(HaveOccurred())
		for form, attach := range map[string]func(*testing.T, *image){
			"a bundle": bundled(func(b *protobundle.Bundle) {
				b.VerificationMaterial.TlogEntries = []*protorekor.TransparencyLogEntry{{CanonicalizedBody: body}}
			}),
			"a legacy signature": func(t *testing.T, i *image) {
				t.Helper()
				text, err := json.Marshal(map[string]any{"Payload": map[string]any{"body": body}})
				NewWithT(t).Expect(err).NotTo(HaveOccurred())
				i.attachAnnotated(t, map[string]string{"dev.sigstore.cosign/bundle": string(text)})
			},
		} {
			t.Run("an envelope in an entry of "+name+" in "+form, func(t *testing.T) {
				i := push(t, serve(t, true), name)
				attach(t, i)
				_, err := i.verify(t, demand)
				expectDenied(NewWithT(t), err, trust.Rejected, "that cannot be read", "the envelope that was proposed")
			})
		}
	}
}

// recose changes the headers of a COSE envelope.
func recose(t *testing.T, envelope []byte, change func(*gocose.Headers)) []byte {
	t.Helper()
	g := NewWithT(t)
	var message gocose.Sign1Message
	g.Expect(message.UnmarshalCBOR(envelope)).To(Succeed())
	change(&message.Headers)
	message.Headers.RawProtected, message.Headers.RawUnprotected = nil, nil
	text, err := message.MarshalCBOR()
	g.Expect(err).NotTo(HaveOccurred())
	return text
}

// attachAnnotated attaches a legacy signature with some annotations.
func (i *image) attachAnnotated(t *testing.T, annotations map[string]string) {
	t.Helper()
	layer := i.blob(t, claim(t, i, i.digest), "application/vnd.dev.cosign.simplesigning.v1+json")
	layer.Annotations = map[string]string{"dev.cosignproject.cosign/signature": "AAAA"}
	maps.Copy(layer.Annotations, annotations)
	i.putTag(t, strings.Replace(i.digest.String(), ":", "-", 1)+".sig", i.referrer(t, "", layer))
}

// TestAnswersOfRespondersAreBounded holds that a server of a certificate authority cannot
// have its answer verified with a key of any size.
func TestAnswersOfRespondersAreBounded(t *testing.T) {
	for name, c := range map[string]struct {
		answer []byte
		words  string
	}{
		"a large key":  {hugeCertificate(t, newSigstore(t)), tooLarge},
		"a large body": {make([]byte, 64<<10+1), "too long"},
		"anything":     {make([]byte, 64<<10), ""},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				_, _ = w.Write(c.answer) // the test reads it
			}))
			t.Cleanup(server.Close)
			request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, server.URL, http.NoBody)
			g.Expect(err).NotTo(HaveOccurred())
			answer, err := trust.Responders(http.DefaultTransport).RoundTrip(request)
			if c.words != "" {
				g.Expect(err).To(MatchError(ContainSubstring(c.words)))
				return
			}
			g.Expect(err).NotTo(HaveOccurred())
			g.Expect(io.ReadAll(answer.Body)).To(Equal(c.answer))
			g.Expect(answer.Body.Close()).To(Succeed())
		})
	}
}

// statements is a trust policy with some statements of some identities each.
func statements(t testing.TB, count, identities int) []byte {
	t.Helper()
	var all []any
	for i := range count {
		var trusted []string
		for j := range identities {
			trusted = append(trusted, fmt.Sprintf("x509.subject: C=US, ST=WA, O=%d", j))
		}
		all = append(all, map[string]any{
			"name": fmt.Sprint(i), "registryScopes": []string{fmt.Sprintf("example.com/%d", i)}, "trustStores": []string{"ca:any"},
			"signatureVerification": map[string]any{"level": "strict"}, "trustedIdentities": trusted,
		})
	}
	text, err := json.Marshal(map[string]any{"version": "1.0", "trustPolicies": all})
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// TestDocumentsInSecretsAreBounded holds that each limit is one of what is read, and
// that one more is refused.
func TestDocumentsInSecretsAreBounded(t *testing.T) {
	notary, s := newNotary(t, "release"), newSigstore(t)
	padded := func(text []byte, size int) []byte { return append(bytes.Repeat([]byte(" "), size-len(text)), text...) }
	trusted := s.trustedRoot(t, lists{log: true})
	rooted := func(text []byte) trust.Demand {
		demand := s.identities(t, lists{log: true})
		demand.TrustedRoot.Data = map[string][]byte{"trusted_root.json": text}
		return demand
	}
	for name, c := range map[string]struct {
		most, more trust.Demand
		words      string
	}{
		"bytes of a trust policy":      {notary.demand(padded(statements(t, 1, 1), 64<<10)), notary.demand(padded(statements(t, 1, 1), 64<<10+1)), "65537 bytes, expected at most 65536"},
		"statements of a trust policy": {notary.demand(statements(t, 100, 1)), notary.demand(statements(t, 101, 1)), "more than the 100"},
		"identities of a statement":    {notary.demand(statements(t, 1, 100)), notary.demand(statements(t, 1, 101)), "has 101 trustedIdentities in one statement, expected at most 100"},
		"bytes of a trusted root":      {rooted(padded(trusted, 64<<10)), rooted(padded(trusted, 64<<10+1)), "65537 bytes, expected at most 65536"},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			_, err := trust.NewAuthority(c.most, trust.Options{})
			g.Expect(err).NotTo(HaveOccurred())
			_, err = trust.NewAuthority(c.more, trust.Options{})
			expectDenied(g, err, trust.Rejected, c.words)
		})
	}
	t.Run("keys of a Secret", func(t *testing.T) {
		g := NewWithT(t)
		data := map[string][]byte{}
		for i := range 33 {
			data[fmt.Sprintf("%02d.pub", i)] = newPair(t).pem(t)
		}
		authority, err := trust.NewAuthority(keys(data), trust.Options{})
		g.Expect(err).NotTo(HaveOccurred())
		g.Expect(authority.Notes()).To(ConsistOf(And(ContainSubstring("32.pub"), ContainSubstring("at most 32 keys"))))
	})
	t.Run("keys of an entry", func(t *testing.T) {
		_, err := trust.NewAuthority(keys(map[string][]byte{"a.pub": bytes.Repeat(newPair(t).pem(t), 33)}), trust.Options{})
		expectDenied(NewWithT(t), err, trust.Rejected, "more than 32 keys")
	})
	t.Run("certificates of a Secret", func(t *testing.T) {
		g := NewWithT(t)
		demand := notary.demand(policy(t, "strict", nil))
		demand.Secret.Data["ca.crt"] = bytes.Repeat(notary.pem(), 100)
		_, err := trust.NewAuthority(demand, trust.Options{})
		g.Expect(err).NotTo(HaveOccurred())
		demand.Secret.Data["cb.crt"] = notary.pem()
		authority, err := trust.NewAuthority(demand, trust.Options{})
		g.Expect(err).NotTo(HaveOccurred())
		g.Expect(authority.Notes()).To(ConsistOf(And(ContainSubstring("cb.crt"), ContainSubstring("at most 100 certificates"))))
	})
	t.Run("bytes of certificates of a Secret", func(t *testing.T) {
		g := NewWithT(t)
		demand := notary.demand(policy(t, "strict", nil))
		demand.Secret.Data["ca.crt"] = append(notary.pem(), bytes.Repeat([]byte("\n"), 256<<10-len(notary.pem()))...)
		demand.Secret.Data["cb.crt"] = notary.pem()
		authority, err := trust.NewAuthority(demand, trust.Options{})
		g.Expect(err).NotTo(HaveOccurred())
		g.Expect(authority.Notes()).To(ConsistOf(And(ContainSubstring("cb.crt"), ContainSubstring("at most 262144 bytes"))))
	})
	t.Run("entries of a Secret", func(t *testing.T) {
		notation := notary.demand(policy(t, "strict", nil))
		notation.Secret.Data["0.crt"] = notary.pem()
		for suffix, demand := range map[string]trust.Demand{".pub": keys(map[string][]byte{"0.pub": newPair(t).pem(t)}), ".crt": notation} {
			g := NewWithT(t)
			for i := range 1000 {
				demand.Secret.Data[fmt.Sprintf("empty-%d%s", i, suffix)] = nil
			}
			authority, err := trust.NewAuthority(demand, trust.Options{})
			g.Expect(err).NotTo(HaveOccurred())
			g.Expect(authority.Notes()).To(ContainElement(ContainSubstring("are not used: at most 100 are read")))
			g.Expect(len(authority.Notes())).To(BeNumerically("<=", 100))
		}
	})
}

// TestIdentitiesInCertificatesAreBounded holds that expressions are matched with short
// values only.
func TestIdentitiesInCertificatesAreBounded(t *testing.T) {
	s := newSigstore(t)
	i := push(t, serve(t, true), "app")
	long := s.leaf(t, leafOptions{subject: "https://example.com/" + strings.Repeat("a", 1024)})
	i.attachBundle(t, s.identityBundle(t, long, statement(t, i.digest, signPredicate), witness{log: time.Now()}))
	demand := s.identities(t, lists{log: true})
	demand.Identities = []trust.Identity{{Issuer: ".*", Subject: ".*"}}
	_, err := i.verify(t, demand)
	expectDenied(NewWithT(t), err, trust.Rejected, "of 1044 bytes, expected at most 1024")
}

// largest are demands at all limits at once.
func largest(b *testing.B) map[string]trust.Demand {
	b.Helper()
	identities := func(expression string) trust.Demand {
		demand := trust.Demand{Provider: trust.ProviderCosign}
		for range 16 {
			demand.Identities = append(demand.Identities, trust.Identity{Issuer: expression, Subject: expression})
		}
		return demand
	}
	public := map[string][]byte{}
	for i := range 32 {
		public[fmt.Sprintf("%d.pub", i)] = publicPEM(b, rsaOf(8192-i))
	}
	notation := func(policy []byte) trust.Demand {
		return trust.Demand{Provider: trust.ProviderNotation, Secret: &trust.Secret{Data: map[string][]byte{
			"trustpolicy.json": policy, "ca.crt": bytes.Repeat([]byte("-----BEGIN CERTIFICATE-----\n"), 35_000),
		}}}
	}
	return map[string]trust.Demand{
		"repetitions":              identities(`.{960}(?:a|bc){20}`),
		"alternatives":             identities("(?i)" + strings.Repeat("a?", 500)),
		"classes":                  identities("(?i)" + strings.Repeat(`\pL`, 4)),
		"classes that are refused": identities("(?i)" + strings.Repeat(`\pL`, 340)),
		"keys":                     keys(public),
		"PEM without an end":       keys(map[string][]byte{"a.pub": bytes.Repeat([]byte("-----BEGIN PUBLIC KEY-----\n"), 38_000)}),
		"PEM that begins late":     keys(map[string][]byte{"a.pub": bytes.Repeat([]byte("-----END PUBLIC KEY-----\n"), 40_000)}),
		"one large statement":      notation(statements(b, 1, 100)),
		"many statements":          notation(statements(b, 8, 100)),
		"a large name":             notation([]byte(`{"version":"1.0","trustPolicies":[{"name":"a","registryScopes":["*"],"trustStores":["ca:any"],"signatureVerification":{"level":"strict"},"trustedIdentities":["x509.subject: ` + strings.Repeat("C=US+O=a,", 7000) + `C=US"]}]}`)),
		"a nested trusted root":    {Provider: trust.ProviderCosign, TrustedRoot: &trust.Secret{Data: map[string][]byte{"trusted_root.json": []byte(`{"a":` + strings.Repeat("[", 9000) + strings.Repeat("]", 9000) + "}")}}, Identities: []trust.Identity{{Issuer: "x", Subject: "x"}}},
	}
}

// BenchmarkLargestDemands parses a Secret and a spec of the largest size.
func BenchmarkLargestDemands(b *testing.B) {
	for name, demand := range largest(b) {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				_, _ = trust.NewAuthority(demand, trust.Options{}) // an error is an answer, too
			}
		})
	}
}

// FuzzDemand makes an authority of any text that a tenant may write to a spec and to
// its Secrets. It must neither panic nor take long.
func FuzzDemand(f *testing.F) {
	t := &testing.T{}
	s, notary := newSigstore(t), newNotary(t, "release")
	f.Add(newPair(t).pem(t), s.trustedRoot(t, lists{log: true}), "issuer", `\Qhttps://x`)
	f.Add(notary.pem(), policy(t, "strict", nil), strings.Repeat(".{1000}", 140), "(?i)\\pL")
	f.Add([]byte("-----BEGIN PUBLIC KEY-----\n"), []byte(`{"trustPolicies":[{}]}`), "(a?){100}", "")
	f.Fuzz(func(t *testing.T, pemText, document []byte, issuer, subject string) {
		began := time.Now()
		secret := &trust.Secret{Name: "apps/secret", Data: map[string][]byte{
			"a.pub": pemText, "a.crt": pemText, "trustpolicy.json": document, "trusted_root.json": document,
		}}
		identities := []trust.Identity{{Issuer: issuer, Subject: subject}}
		for _, demand := range []trust.Demand{
			{Provider: trust.ProviderCosign, Secret: secret},
			{Provider: trust.ProviderCosign, Secret: secret, TrustedRoot: secret},
			{Provider: trust.ProviderCosign, TrustedRoot: secret, Identities: identities},
			{Provider: trust.ProviderCosign, Identities: identities},
			{Provider: trust.ProviderNotation, Secret: secret},
		} {
			authority, err := trust.NewAuthority(demand, trust.Options{})
			if (authority == nil) == (err == nil) {
				t.Fatalf("authority %v, error %v", authority, err)
			}
		}
		if took := time.Since(began); took > 5*time.Second {
			t.Fatalf("it took %s", took)
		}
	})
}
