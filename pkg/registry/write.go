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
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/image-source/image-source-controller/api/v1alpha1"
	"github.com/image-source/image-source-controller/pkg/fault"
)

// Writable returns the same repository with logins that ask for the right to push,
// also to read: registries that create a repository with its first push do not
// tell others that a tag is missing.
func (r *Repository) Writable() *Repository {
	writable := *r
	writable.scope = rightTo(r.access.repository, "pull,push")
	return &writable
}

// RoundTripper returns the guarded connection to the registry for clients that
// write, such as go-containerregistry's remote package. It logs in by itself with
// the credential and the rules of this repository, so that such a client needs no
// credential: it answers the question for /v2/ with 200 once the registry is found. Of an
// answer, such as a manifest to add to, MaxManifest bytes are read; a longer one ends with
// LimitExceeded (stall).
func (r *Repository) RoundTripper() http.RoundTripper { return writer{r} }

// writer is the connection of clients that write.
type writer struct{ *Repository }

// RoundTrip implements http.RoundTripper.
func (w writer) RoundTrip(request *http.Request) (*http.Response, error) {
	answer, err := w.route(request)
	if err == nil {
		w.noteUpload(answer)
		answer.Body = &short{ReadCloser: answer.Body, left: MaxManifest + 1}
	}
	return answer, err
}

// short is a body that clients may keep in memory, of any size that its sender announced.
type short struct {
	io.ReadCloser
	left int64
}

// Read implements io.Reader.
func (s *short) Read(p []byte) (int, error) {
	n, err := s.ReadCloser.Read(p[:min(int64(len(p)), s.left)])
	if s.left -= int64(n); s.left == 0 {
		return n, fault.Stallf(v1alpha1.ReasonLimitExceeded, "an answer of the registry is larger than %d bytes", MaxManifest)
	}
	return n, err
}

// route sends a request where it may go.
func (w writer) route(request *http.Request) (*http.Response, error) {
	session := w.session
	if w.invalid != nil {
		return nil, w.invalid
	}
	e, err := session.endpoint(request.Context())
	if err != nil {
		return nil, err
	}
	own := strings.EqualFold(request.URL.Host, session.link.key.host)
	switch {
	case own && request.URL.Scheme != e.scheme, request.URL.Scheme == "http" && e.scheme != "http":
		return nil, refusef("refused to connect to %q by %s: the registry speaks %s", request.URL.Host, request.URL.Scheme, strings.ToUpper(e.scheme))
	case !own && redirectedFrom(request) == nil: // where an upload goes on
		from, _ := session.uploads.get(hostPort(request.URL))
		return session.link.RoundTrip(request.WithContext(ledFrom(request.Context(), from)))
	case !own:
		return session.link.RoundTrip(request)
	case request.URL.Path == "/v2/":
		return &http.Response{StatusCode: http.StatusOK, Header: http.Header{}, Body: http.NoBody, Request: request}, nil
	}
	return w.attempt(request, e)
}

// noteUpload notes which address says where an upload goes on. Clients go there by a
// request that nothing ties to the answer.
func (w writer) noteUpload(answer *http.Response) {
	to, err := answer.Location()
	if t := tripOf(answer.Request.Context()); err == nil && t != nil {
		w.session.uploads.put(hostPort(to), t.at)
	}
}

// attempt sends a request to the registry. An expired token is refreshed once if
// the body can be sent again.
func (w writer) attempt(request *http.Request, e endpoint) (*http.Response, error) {
	scope := w.scopeOf(request)
	answer, err := w.send(request, e, scope)
	if err != nil || answer.StatusCode != http.StatusUnauthorized || !w.session.refused(scope, answer) { //nolint:contextcheck // the trip is in the answer
		return answer, err
	}
	again := request.Clone(request.Context())
	switch {
	case request.GetBody != nil:
		if again.Body, err = request.GetBody(); err != nil {
			return answer, nil //nolint:nilerr // the answer says what is wrong
		}
	case request.Body != nil && request.Body != http.NoBody:
		return answer, nil
	}
	drain(answer)
	if e, err = w.session.endpoint(request.Context()); err != nil {
		return nil, err
	}
	return w.send(again, e, scope)
}

func (w writer) send(request *http.Request, e endpoint, scope string) (*http.Response, error) {
	authorization, err := w.session.authorization(request.Context(), e, caller{auth: w.auth, scope: scope})
	if err != nil {
		return nil, err
	}
	return (&authorized{link: w.session.link, origin: request.URL, header: authorization}).RoundTrip(request)
}

// scopeOf adds the right to read where a blob is mounted from.
func (w writer) scopeOf(request *http.Request) string {
	if from := request.URL.Query().Get("from"); from != "" && request.Method == http.MethodPost {
		return w.scope + " " + rightTo(from, "pull")
	}
	return w.scope
}

// patience is how long Put waits before it tries again.
func patience() []time.Duration { return []time.Duration{time.Second, 3 * time.Second} }

// Put stores a manifest under a tag or digest. It tries again where the registry
// is overloaded.
//
// Errors: *transport.Error for an answer that refuses; others are for Explain.
func (r *Repository) Put(ctx context.Context, ref string, mediaType types.MediaType, body []byte) error {
	for _, pause := range patience() {
		err := r.put(ctx, ref, mediaType, body)
		if refusal, ok := errors.AsType[*transport.Error](err); !ok || !refusal.Temporary() {
			return err
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return r.put(ctx, ref, mediaType, body)
}

func (r *Repository) put(ctx context.Context, ref string, mediaType types.MediaType, body []byte) error {
	e, err := r.session.endpoint(ctx)
	if err != nil {
		return err
	}
	target := url.URL{Scheme: e.scheme, Host: r.access.host, Path: "/v2/" + r.access.repository + "/manifests/" + ref}
	request, err := http.NewRequestWithContext(ctx, http.MethodPut, target.String(), bytes.NewReader(body))
	if err != nil {
		return err
	}
	request.Header.Set("Content-Type", string(mediaType))
	client := http.Client{Transport: r.RoundTripper(), CheckRedirect: stillWrites}
	answer, err := client.Do(request)
	if err != nil {
		return err
	}
	defer drain(answer)
	return transport.CheckError(answer, http.StatusOK, http.StatusCreated, http.StatusAccepted)
}

// stillWrites refuses a redirect after which the manifest would be read and not stored,
// such as to a page for logging in (RFC 9110 section 15.4).
func stillWrites(request *http.Request, via []*http.Request) error {
	if first := via[0].Method; request.Method != first {
		return refusef("refused a redirect to %q that makes a %s of a %s: nothing would be stored", request.URL.Host, request.Method, first)
	}
	return nil
}
