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
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/sigstore/sigstore/pkg/cryptoutils"
	"github.com/sigstore/sigstore/pkg/signature"
	"github.com/sigstore/sigstore/pkg/signature/options"

	"github.com/image-source/image-source-controller/pkg/fault"
	"github.com/image-source/image-source-controller/pkg/limit"
)

// Secret is a Secret of Kubernetes as far as it matters here, or what stands in
// for one where there is no cluster: files.
type Secret struct {
	// Name as people should read it, with or without a namespace.
	Name string
	// Data by entry.
	Data map[string][]byte
	// Files are the paths of the files that stand in for it, by entry; nil for a
	// Secret. An entry that has no meaning by its name is what is looked for then,
	// whatever its suffix.
	Files map[string]string
}

// String names the Secret in a message.
func (s *Secret) String() string {
	if s.Files != nil {
		return s.Name
	}
	return "Secret " + fault.Quote(s.Name)
}

// entry names an entry in a message.
func (s *Secret) entry(name string) string {
	if path, ok := s.Files[name]; ok {
		return "file " + fault.Quote(path)
	}
	return fmt.Sprintf("entry %s of %s", fault.Quote(name), s)
}

// maxEntries bounds the keys and certificates of a Secret, in entries. The API server
// stores some 100,000 empty ones, and each that is not used is named.
const maxEntries = 100

// read has the first entries with one of the suffixes parsed, in order. Those that cannot
// be used, and those that are left, are named in notes and do not hide the others.
func (s *Secret) read(parse func(entry string) error, suffixes ...string) (notes []string) {
	var names []string
	for name := range s.Data {
		if s.Files != nil && name != trustPolicyEntry || slices.ContainsFunc(suffixes, func(suffix string) bool { return strings.HasSuffix(name, suffix) }) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	if more := len(names) - maxEntries; more > 0 {
		names = names[:maxEntries]
		notes = append(notes, fmt.Sprintf("%d entries of %s are not used: at most %d are read", more, s, maxEntries))
	}
	for _, entry := range names {
		if err := parse(entry); err != nil {
			notes = append(notes, fmt.Sprintf("%s is not used: %s", s.entry(entry), err))
		}
	}
	return notes
}

// decode decodes an entry that must be there, of at most some bytes, and that is to be
// what it is called.
func (s *Secret) decode(entry, what string, most int, decode func(text []byte) error) error {
	text, ok := s.Data[entry]
	if !ok {
		return denyf(Rejected, "%s has no entry %s", s, entry)
	}
	err := fmt.Errorf("it has %d bytes, expected at most %d", len(text), most)
	if len(text) <= most {
		err = decode(text)
	}
	if err != nil {
		return denyf(Rejected, "%s is not %s: %s", s.entry(entry), what, fault.WordsOf(err))
	}
	return nil
}

// key is a public key that may have signed.
type key struct {
	// entry of the Secret that it stands in.
	entry string
	// fingerprint is the sha256 of its PKIX encoding, in hexadecimal.
	fingerprint string
	// verifiers are the ways in which signatures are made with such a key.
	verifiers []signature.Verifier
}

// name is short; String of a Signer has all of the fingerprint.
func (k key) name() string {
	return fmt.Sprintf("%s (sha256:%s…)", fault.Words(k.entry), k.fingerprint[:12])
}

// maxKeys bounds the public keys that are read from a Secret: each signature may
// have to be verified with all of them.
const maxKeys = 32

// parseKeys reads every entry of a Secret that ends in .pub.
func parseKeys(secret *Secret) (keys []key, notes []string) {
	notes = secret.read(func(entry string) error {
		parsed, err := parseEntry(entry, secret.Data[entry])
		if err == nil && len(keys)+len(parsed) > maxKeys {
			err = fmt.Errorf("at most %d keys of a Secret are read", maxKeys)
		}
		if err == nil {
			keys = append(keys, parsed...)
		}
		return err
	}, ".pub")
	return keys, notes
}

var (
	errNoPEM      = errors.New("it is not a public key in PEM format")
	errPrivateKey = errors.New("it holds a private key, which must never be here; take it out and replace the key pair")
)

// parseEntry reads the public keys in an entry, and refuses all of them when
// there is anything else.
func parseEntry(entry string, data []byte) ([]key, error) {
	var keys []key
	for {
		var block *pem.Block
		block, data = pem.Decode(data)
		switch {
		case block == nil && len(keys) == 0:
			return nil, errNoPEM
		case block == nil:
			return keys, nil
		case len(keys) == maxKeys:
			return nil, fmt.Errorf("it holds more than %d keys", maxKeys)
		case strings.Contains(block.Type, "PRIVATE KEY"):
			return nil, errPrivateKey
		}
		public, err := cryptoutils.UnmarshalPEMToPublicKey(pem.EncodeToMemory(block))
		if err != nil {
			return nil, errNoPEM
		}
		parsed, err := newKey(entry, public)
		if err != nil {
			return nil, err
		}
		keys = append(keys, parsed)
	}
}

func newKey(entry string, public crypto.PublicKey) (key, error) {
	if err := limit.Key(public); err != nil {
		return key{}, fmt.Errorf("it holds %w", err)
	}
	encoded, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		return key{}, errNoPEM
	}
	verifiers, err := verifiersOf(public)
	if err != nil {
		return key{}, fmt.Errorf("keys of its kind are not supported: %s", fault.WordsOf(err))
	}
	return key{entry: entry, fingerprint: bytesPrint(encoded), verifiers: verifiers}, nil
}

// verifiersOf returns what cosign has signed with over the years: with sha256
// whatever the key, and then by the key's own algorithm.
func verifiersOf(public crypto.PublicKey) ([]signature.Verifier, error) {
	first, err := signature.LoadVerifier(public, crypto.SHA256)
	if err != nil {
		return nil, err
	}
	verifiers := []signature.Verifier{first}
	var second signature.Verifier
	switch public := public.(type) {
	case ed25519.PublicKey:
		second, err = signature.LoadVerifierWithOpts(public, options.WithED25519ph())
	case *ecdsa.PublicKey:
		if public.Curve == elliptic.P256() {
			return verifiers, nil
		}
		second, err = signature.LoadDefaultVerifier(public)
	default:
		return verifiers, nil
	}
	if err != nil {
		return nil, err
	}
	return append(verifiers, second), nil
}
