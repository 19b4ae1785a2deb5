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

package registry

import (
	"context"
	"io"
	"net/http"
	"net/url"

	"github.com/google/go-containerregistry/pkg/authn"
	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// Repository is one repository as one access sees it. It is safe for
// concurrent use.
type Repository struct {
	client *Client
	name   string
	// invalid is the error of a name that is not one, or of an access that must not be used.
	invalid error
	access  accessKey
	session *session
	auth    authn.Authenticator
	// scope is the rights that a login asks for.
	scope string
	// registry is what Registry returns.
	registry string
	way      accessKey
}

// Name returns the canonical name, see reference.Canonical. It is the name that the
// registry is asked for.
func (r *Repository) Name() string { return r.name }

// Key returns the access key: two repositories with equal keys see the same
// things. It is 64 hexadecimal digits and reveals nothing.
func (r *Repository) Key() string { return r.access.String() }

// Registry identifies the registry that answers: accesses for which it is equal
// are answered by the same one, so that its word on what each of them may see
// can be compared. That is the host for all who reach it as everybody does. Who
// brings along TLS material, a proxy or plain HTTP may be answered by a server
// of its own, whatever the host: that is the registry of this access alone.
func (r *Repository) Registry() string { return r.registry }

// ask is a request to the repository.
type ask struct {
	method string // empty: GET
	kind   string // manifests, blobs or referrers
	ref    string // a tag or a digest, checked by whoever makes the ask
	query  string // without its question mark
	accept string
}

// send returns the answer if it is 200. Who gets an answer closes it.
func (r *Repository) send(ctx context.Context, a ask) (*http.Response, error) {
	answer, err := r.exchange(ctx, a)
	if err != nil || answer.StatusCode == http.StatusOK {
		return answer, err
	}
	defer drain(answer)
	return nil, newAnswerError(answer, r.client.options.Clock())
}

// exchange returns the answer, whatever it says. An expired token is refreshed
// once.
func (r *Repository) exchange(ctx context.Context, a ask) (*http.Response, error) {
	if r.invalid != nil {
		return nil, r.invalid
	}
	answer, err := r.attempt(ctx, a)
	if err == nil && answer.StatusCode == http.StatusUnauthorized && r.answered(answer) &&
		r.session.refused(r.scope, answer) { //nolint:contextcheck // the trip is in the answer
		drain(answer)
		answer, err = r.attempt(ctx, a)
	}
	if err == nil && r.answered(answer) {
		r.noteRefusal(a, answer.StatusCode)
	}
	return answer, err
}

// answered tells whether an answer is that of the registry itself, and not of
// storage that it redirects to.
func (r *Repository) answered(answer *http.Response) bool {
	return answer.Request.URL.Host == r.access.host
}

// endpoint returns how to reach the registry. One that has answered by HTTPS on the
// way of this access gets nothing more by plain HTTP, as with session.ping, which
// knows the present content of its Secrets only.
func (r *Repository) endpoint(ctx context.Context) (endpoint, error) {
	e, err := r.session.endpoint(ctx)
	if r.way.fingerprint == "" {
		return e, err
	}
	secure := r.client.secure
	if _, now := secure.get(r.session.link.key); now {
		secure.put(r.way, struct{}{})
	}
	if _, before := secure.get(r.way); before && err == nil && e.scheme != "https" {
		return e, errSpokeHTTPS()
	}
	return e, err
}

func (r *Repository) attempt(ctx context.Context, a ask) (*http.Response, error) {
	e, err := r.endpoint(ctx)
	if err != nil {
		return nil, err
	}
	authorization, err := r.session.authorization(ctx, e, caller{auth: r.auth, scope: r.scope})
	if err != nil {
		return nil, err
	}
	target := &url.URL{Scheme: e.scheme, Host: r.access.host, Path: "/v2/" + r.access.repository + "/" + a.kind + "/" + a.ref, RawQuery: a.query}
	request, err := http.NewRequestWithContext(ctx, a.method, target.String(), http.NoBody)
	if err != nil {
		return nil, err
	}
	request.Header.Set("Accept-Encoding", "identity")
	if a.accept != "" {
		request.Header.Set("Accept", a.accept)
	}
	answer, err := r.session.send(request, authorization)
	failed := err != nil && ctx.Err() == nil
	moved := err == nil && r.answered(answer) && answer.Request.URL.Scheme != e.scheme
	if failed || moved {
		r.session.lost()
	}
	return answer, err
}

// noteRefusal forgets what a refusal by the registry makes doubtful.
func (r *Repository) noteRefusal(a ask, code int) {
	switch code {
	case http.StatusUnauthorized, http.StatusForbidden:
		r.session.tokens.remove(r.scope)
		ours := func(k digestKey) bool { return k.access == r.access }
		r.client.proofs.removeAll(ours)
		r.client.manifests.removeAll(ours) // to have one is a proof, too
		r.client.tags.removeAll(func(k tagKey) bool { return k.access == r.access })
	case http.StatusNotFound:
		if digest, err := v1.NewHash(a.ref); err == nil {
			r.client.proofs.remove(digestKey{access: r.access, digest: digest})
		}
		r.client.tags.remove(tagKey{access: r.access, tag: a.ref})
	}
}

// drain reads the short rest of an answer, so that its connection can be used again.
func drain(answer *http.Response) {
	_, _ = io.Copy(io.Discard, io.LimitReader(answer.Body, maxAnswerBytes)) // nobody needs it
	_ = answer.Body.Close()
}
