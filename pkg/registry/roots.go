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

import "net/http"

// roots is a connection to the repositories of roots of trust, by the rules of a
// registry: one may itself be at a private address, because the platform names it.
type roots struct{ client *Client }

// Roots returns a connection to the repositories of roots of trust that the platform
// names, for GET without credentials. Addresses, redirects, headers, deadlines and the
// environment's proxy are handled as for registries. How much of an answer is read is
// up to the caller.
func (c *Client) Roots() http.RoundTripper { return roots{client: c} }

// RoundTrip implements http.RoundTripper.
func (r roots) RoundTrip(request *http.Request) (*http.Response, error) {
	named := original(request).URL
	key := accessKey{host: named.Host}
	if named.Scheme == "http" {
		key.plain = implied
	}
	return r.client.link(key, Access{}).sendWithout(request, "root", "a repository of roots of trust", http.MethodGet)
}
