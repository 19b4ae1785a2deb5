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
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/sigstore/sigstore-go/pkg/root"
	"github.com/sigstore/sigstore-go/pkg/tuf"
	"github.com/theupdateframework/go-tuf/v2/metadata/fetcher"

	"github.com/image-source/image-source-controller/pkg/fault"
)

const (
	// rootAge is how long the public root is used before it is asked for again.
	rootAge = 24 * time.Hour
	// maxRootAge is how long it is used when it cannot be had again. After that,
	// somebody may be keeping us from learning that a key was revoked.
	maxRootAge = 7 * 24 * time.Hour
	// rootPause is the least time between two attempts to get it.
	rootPause = time.Minute
	// rootTimeout bounds one attempt, which goes on when who asked for it gives up.
	rootTimeout = time.Minute
)

// PublicRootOptions configure a PublicRoot.
type PublicRootOptions struct {
	// Folder keeps the metadata of The Update Framework, and must be writable.
	Folder string
	// Mirror is the address of the repository; empty is the one of Sigstore's
	// public good instance.
	Mirror string
	// Root is the root metadata that the repository is trusted by; nil is what
	// this program was built with. A Mirror with keys of its own needs it.
	Root []byte
	// Transport reaches the repository; nil is http.DefaultTransport.
	Transport http.RoundTripper
	// Clock tells the time; nil is time.Now.
	Clock func() time.Time
}

// PublicRoot is the root of trust for keyless signatures that come with no root
// of their own: Sigstore's public good instance, kept up to date by The Update
// Framework. A process has one. It contacts nobody until it is needed.
type PublicRoot struct {
	options PublicRootOptions
	turn    chan struct{} // held by who gets the root
	last    atomic.Pointer[publicRoot]
}

// publicRoot is what came of the last attempts.
type publicRoot struct {
	material root.TrustedMaterial // nil when there is none yet
	got      time.Time
	err      error // of the last attempt
	tried    time.Time
}

// NewPublicRoot returns a root that is fetched when it is first needed.
func NewPublicRoot(options PublicRootOptions) (*PublicRoot, error) {
	if options.Folder == "" {
		return nil, errors.New("the public root of trust needs a folder that it may write to")
	}
	if options.Mirror == "" {
		options.Mirror = tuf.DefaultMirror
	}
	if options.Root == nil {
		options.Root = tuf.DefaultRoot()
	}
	if options.Transport == nil {
		options.Transport = http.DefaultTransport //nolint:forbidigo // it reaches no registry
	}
	if options.Clock == nil {
		options.Clock = time.Now
	}
	p := &PublicRoot{options: options, turn: make(chan struct{}, 1)}
	p.last.Store(&publicRoot{})
	return p, nil
}

// material returns the root, which is at most maxRootAge old.
func (p *PublicRoot) material(ctx context.Context) (root.TrustedMaterial, error) {
	if p == nil {
		return nil, denyf(Unknown, "there is no public root of trust here; give one with trustedRootSecretRef")
	}
	if !p.due(p.last.Load()) {
		return p.usable(p.last.Load())
	}
	select {
	case p.turn <- struct{}{}:
	case <-ctx.Done():
		return nil, denyf(Unknown, "cannot get the public root of trust: %s", ctx.Err())
	}
	done := make(chan struct{})
	go func() {
		defer func() { <-p.turn; close(done) }()
		if last := p.last.Load(); p.due(last) {
			p.last.Store(p.refreshed(last))
		}
	}()
	select {
	case <-done:
		return p.usable(p.last.Load())
	case <-ctx.Done():
		return nil, denyf(Unknown, "cannot get the public root of trust: %s", ctx.Err())
	}
}

func (p *PublicRoot) due(last *publicRoot) bool {
	now := p.options.Clock()
	old := last.material == nil || now.Sub(last.got) >= rootAge
	return old && (last.tried.IsZero() || now.Sub(last.tried) >= rootPause)
}

func (p *PublicRoot) usable(last *publicRoot) (root.TrustedMaterial, error) {
	if last.material != nil && p.options.Clock().Sub(last.got) < maxRootAge {
		return last.material, nil
	}
	return nil, denyf(Unknown, "cannot get the public root of trust: %s", fault.Words(last.err.Error()))
}

func (p *PublicRoot) refreshed(last *publicRoot) *publicRoot {
	now := p.options.Clock()
	material, err := p.fetch()
	if err != nil {
		return &publicRoot{material: last.material, got: last.got, err: err, tried: now}
	}
	return &publicRoot{material: material, got: now, tried: now}
}

func (p *PublicRoot) fetch() (root.TrustedMaterial, error) {
	by := fetcher.NewDefaultFetcher()
	by.SetHTTPClient(&http.Client{Transport: p.options.Transport, Timeout: rootTimeout})
	material, err := root.FetchTrustedRootWithOptions(&tuf.Options{
		Root: p.options.Root, RepositoryBaseURL: p.options.Mirror, CachePath: p.options.Folder, Fetcher: by,
	})
	if err != nil {
		return nil, err
	}
	return material, nil
}

// trustedRootEntry is the entry of a Secret that holds a trusted root.
const trustedRootEntry = "trusted_root.json"

// parseRoot reads the trusted root of a private Sigstore.
func parseRoot(secret *Secret) (root.TrustedMaterial, error) {
	text, ok := secret.Data[trustedRootEntry]
	if !ok {
		return nil, denyf(Rejected, "%s has no entry %s", secret, trustedRootEntry)
	}
	material, err := root.NewTrustedRootFromJSON(text)
	if err != nil {
		return nil, denyf(Rejected, "%s is not a trusted root of Sigstore: %s", secret.entry(trustedRootEntry), fault.Words(err.Error()))
	}
	return material, nil
}

// times says how a root lets us know when a signature was made.
type times struct{ log, stamps bool }

// timesOf refuses a root by which nobody can tell that a certificate which
// lives for minutes was valid when it signed.
func timesOf(material root.TrustedMaterial) (times, error) {
	t := times{log: len(material.RekorLogs()) > 0, stamps: len(material.TimestampingAuthorities()) > 0}
	if !t.log && !t.stamps {
		return t, fmt.Errorf("the trusted root lists neither a transparency log nor a timestamp authority, so nobody can tell when a signature was made")
	}
	return t, nil
}
