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
	"errors"
	"io"
	"net/http"

	"github.com/image-source/image-source-controller/pkg/limit"
)

// maxRevocationBytes bounds an answer of a certificate authority, which may be a
// list of everything that it revoked.
const maxRevocationBytes = 8 << 20

// authorities is a connection to the servers at which certificates say that
// their revocation can be looked up. Whoever made a certificate chose the
// address, so it has the rules of a redirect: nothing private or on loopback
// unless the platform lists it, no metadata service ever, and https does not
// lead to http, which is what such servers usually speak.
type authorities struct{ link *link }

// Authorities returns a connection to the OCSP and CRL servers that certificates
// name, for GET and POST without credentials. Addresses, redirects, deadlines and
// the environment's proxy are handled as for registries; answers are bounded.
func (c *Client) Authorities() http.RoundTripper {
	key := accessKey{plain: implied}
	return authorities{link: c.links.getOrPut(linkKeyOf(key, Access{}), func() *link { return newLink(c, key, Access{}) })}
}

// RoundTrip implements http.RoundTripper.
func (a authorities) RoundTrip(request *http.Request) (*http.Response, error) {
	if err := a.link.judgeScheme(request); err != nil {
		return nil, err
	}
	if request.Method != http.MethodGet && request.Method != http.MethodPost {
		return nil, refusef("refused to send %s to a certificate authority", request.Method)
	}
	request = request.Clone(request.Context())
	request.Header.Del("Authorization")
	answer, err := a.link.send(request, "revocation")
	if err != nil {
		return nil, err
	}
	answer.Body = &boundedBody{ReadCloser: answer.Body, left: maxRevocationBytes}
	return answer, nil
}

// boundedBody fails where it would go on for longer than it may.
type boundedBody struct {
	io.ReadCloser
	left int64
}

// Read implements io.Reader.
func (b *boundedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p[:min(int64(len(p)), b.left+1)])
	if b.left -= int64(n); b.left < 0 && (err == nil || errors.Is(err, io.EOF)) {
		return n, limit.ErrTooLong
	}
	return n, err
}
