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
	"net/http"
	"sync"
	"time"

	"github.com/sigstore/sigstore-go/pkg/root"
	"github.com/sigstore/sigstore-go/pkg/tuf"
	"github.com/theupdateframework/go-tuf/v2/metadata/fetcher"

	"github.com/image-source/image-source-controller/pkg/fault"
	"github.com/image-source/image-source-controller/pkg/limit"
)

const (
	// rootAge is how long the public root is used before it is asked for again.
	rootAge = 24 * time.Hour
	// maxRootAge is how long it is used when it cannot be had again. After that,
	// somebody may be keeping us from learning that a key was revoked.
	maxRootAge = 7 * 24 * time.Hour
	// rootPause is the least time between the end of an attempt to get it and the
	// next.
	rootPause = time.Minute
	// rootTimeout bounds an attempt with all its requests, which are some small
	// files. It is shorter than an attempt at an image, so that who waits for the
	// first root learns why there is none.
	rootTimeout = 30 * time.Second
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
	// Transport reaches the repository, see registry.Client.Roots. It decides where that
	// may lead to.
	Transport http.RoundTripper
	// Timeout bounds one attempt to reach it; zero is 30 seconds.
	Timeout time.Duration
	// Clock tells the time; nil is time.Now.
	Clock func() time.Time
}

// PublicRoot is the root of trust for keyless signatures that come with no root
// of their own: Sigstore's public good instance, kept up to date by The Update
// Framework. A process has one. It contacts nobody until it is needed, and keeps
// nobody waiting while it has a root that is good.
type PublicRoot struct {
	options PublicRootOptions

	mu      sync.Mutex
	last    publicRoot
	running chan struct{} // closed at the end of the attempt that runs; nil when none does
}

// publicRoot is what came of the last attempts.
type publicRoot struct {
	material root.TrustedMaterial // nil when there is none yet
	digest   string               // of its bytes, the same for all who have it
	got      time.Time
	err      error     // of the last attempt
	tried    time.Time // when that ended
}

// NewPublicRoot returns a root that is fetched when it is first needed.
func NewPublicRoot(options PublicRootOptions) (*PublicRoot, error) {
	if options.Folder == "" {
		return nil, errors.New("the public root of trust needs a folder that it may write to")
	}
	if options.Transport == nil {
		return nil, errors.New("the public root of trust needs a transport")
	}
	if options.Mirror == "" {
		options.Mirror = tuf.DefaultMirror
	}
	if options.Root == nil {
		options.Root = tuf.DefaultRoot()
	}
	if options.Clock == nil {
		options.Clock = time.Now
	}
	if options.Timeout == 0 {
		options.Timeout = rootTimeout
	}
	return &PublicRoot{options: options}, nil
}

// material returns the root, which is at most maxRootAge old. It waits for the
// repository only when there is none.
func (p *PublicRoot) material(ctx context.Context) (root.TrustedMaterial, error) {
	if p == nil {
		return nil, denyf(Unknown, "there is no public root of trust here; give one with trustedRootSecretRef")
	}
	last, running := p.current()
	if !p.good(last) && running != nil {
		select {
		case <-running:
			last, _ = p.current()
		case <-ctx.Done():
			return nil, denyf(Unknown, "cannot get the public root of trust: %s", ctx.Err())
		}
	}
	if !p.good(last) {
		return nil, denyf(Unknown, "cannot get the public root of trust: %s", fault.Words(last.err.Error()))
	}
	return last.material, nil
}

// fingerprint identifies the root that is in use, by its content. It is empty while
// there is none, and keeps nobody waiting: who needs it has it fetched.
func (p *PublicRoot) fingerprint() string {
	last, _ := p.current()
	if !p.good(last) {
		return ""
	}
	return last.digest
}

// current returns what is known and, unless it is new enough, the attempt to
// know more, which goes on when who asked gives up.
func (p *PublicRoot) current() (last publicRoot, running <-chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.running == nil && p.due(p.last) {
		p.running = make(chan struct{})
		go p.attempt(p.last, p.running)
	}
	return p.last, p.running
}

func (p *PublicRoot) due(last publicRoot) bool {
	now := p.options.Clock()
	old := last.material == nil || now.Sub(last.got) >= rootAge
	return old && (last.tried.IsZero() || now.Sub(last.tried) >= rootPause)
}

func (p *PublicRoot) good(last publicRoot) bool {
	return last.material != nil && p.options.Clock().Sub(last.got) < maxRootAge
}

func (p *PublicRoot) attempt(last publicRoot, running chan struct{}) {
	began := p.options.Clock()
	fetched, err := guarded(p.fetch)
	if err == nil {
		last = fetched
		last.got = began
	}
	last.err, last.tried = err, p.options.Clock()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.last, p.running = last, nil
	close(running)
}

// fetch gets the root from the repository, within the time of one attempt.
func (p *PublicRoot) fetch() (fetched publicRoot, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), p.options.Timeout) //nolint:forbidigo // it is for all who wait, and for those to come
	defer cancel()
	client := &http.Client{Transport: p.options.Transport}
	by := fetcher.NewDefaultFetcher()
	by.SetHTTPClient(sender(func(request *http.Request) (*http.Response, error) {
		return client.Do(request.WithContext(ctx)) //nolint:gosec // whoever runs this program names the repository
	}))
	repository, err := tuf.New(&tuf.Options{
		Root: p.options.Root, RepositoryBaseURL: p.options.Mirror, CachePath: p.options.Folder, Fetcher: by,
	})
	if err != nil {
		return fetched, err
	}
	text, err := repository.GetTarget(trustedRootEntry)
	if err != nil {
		return fetched, err
	}
	material, err := root.NewTrustedRootFromJSON(text)
	if err != nil {
		return fetched, err
	}
	return publicRoot{material: material, digest: bytesPrint(text)}, nil
}

// sender sends requests in its own way.
type sender func(*http.Request) (*http.Response, error)

// Do returns the answer to a request.
func (s sender) Do(request *http.Request) (*http.Response, error) { return s(request) }

// trustedRootEntry is the entry of a Secret that holds a trusted root.
const trustedRootEntry = "trusted_root.json"

// maxRoot bounds a trusted root, in bytes. That of Sigstore's public good instance
// has less than 10 KiB. The number of its authorities decides how many chains are
// tried for each certificate and timestamp.
const maxRoot = 64 << 10

// parseRoot reads the trusted root of a private Sigstore.
func parseRoot(secret *Secret) (*root.TrustedRoot, error) {
	var material *root.TrustedRoot
	err := secret.decode(trustedRootEntry, "a trusted root of Sigstore", maxRoot, func(text []byte) error {
		err := bound("it", text, maxSignatureValues)
		if err == nil {
			err = limit.Keys(text)
		}
		if err == nil {
			material, err = root.NewTrustedRootFromJSON(text)
		}
		return err
	})
	return material, err
}
