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
	"io"
	"net/http"
	"sync"

	"github.com/image-source/image-source-controller/pkg/limit"
)

const (
	// maxRevocationBytes bounds an answer of a certificate authority, which may be a
	// list of everything that it revoked.
	maxRevocationBytes = 1 << 20
	// listBytes is what makes an answer a list: OCSP takes less.
	listBytes = 64 << 10
)

// authorities is a connection to the servers at which certificates say that
// their revocation can be looked up. Whoever made a certificate chose the
// address, so it has the rules of a redirect: nothing private or on loopback
// unless the platform lists it, no metadata service ever, and https does not
// lead to http, which is what such servers usually speak.
type authorities struct {
	link *link
	// lists has a place for each list that is being read.
	lists chan struct{}
}

// Authorities returns a connection to the OCSP and CRL servers that certificates
// name, for GET and POST without credentials. Addresses, redirects, deadlines and
// the environment's proxy are handled as for registries; answers are bounded. Few of
// the long ones are handed out at a time, each until its body is closed: close it when
// it is decoded.
func (c *Client) Authorities() http.RoundTripper {
	return authorities{lists: c.lists, link: c.link(accessKey{plain: implied}, Access{})}
}

// RoundTrip implements http.RoundTripper.
func (a authorities) RoundTrip(request *http.Request) (*http.Response, error) {
	answer, err := a.link.sendWithout(request, "revocation", "a certificate authority", http.MethodGet, http.MethodPost)
	if err != nil {
		return nil, err
	}
	// Who sends slowly waits here, and keeps nobody from a place.
	body, err := limit.ReadAll(answer.Body, maxRevocationBytes)
	_ = answer.Body.Close()
	if err != nil {
		return nil, err
	}
	read := &longAnswer{Reader: bytes.NewReader(body), leave: func() {}}
	if len(body) > listBytes {
		select {
		case a.lists <- struct{}{}:
			read.leave = sync.OnceFunc(func() { <-a.lists })
		case <-request.Context().Done():
			return nil, context.Cause(request.Context())
		}
	}
	answer.Body = read
	return answer, nil
}

// longAnswer is the body of an answer that was read to its end, with its place.
type longAnswer struct {
	io.Reader
	leave func()
}

// Close implements io.Closer.
func (l *longAnswer) Close() error {
	l.leave()
	return nil
}
