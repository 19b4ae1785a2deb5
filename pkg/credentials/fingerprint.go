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

package credentials

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/url"
)

// anonymous is the fingerprint of all who bring nothing along.
const anonymous = "anonymous"

// fingerprint returns what tells an access from others without revealing it: an
// HMAC (RFC 2104) under a key that nobody outside of this process has, because
// a plain hash of a weak password gives it away.
func (r *Resolver) fingerprint(who login, with trust, through *url.URL) string {
	if who.auth == nil && with.config == nil && through == nil {
		return anonymous
	}
	proxy := []string{}
	if through != nil {
		proxy = append(proxy, through.String())
	}
	mac := hmac.New(sha256.New, r.key[:])
	for _, group := range [][]string{who.identity, with.material, proxy} {
		// Counts and lengths keep neighbours apart. A hash never fails to write.
		_, _ = fmt.Fprintf(mac, "%d;", len(group))
		for _, part := range group {
			_, _ = fmt.Fprintf(mac, "%d:%s", len(part), part)
		}
	}
	return hex.EncodeToString(mac.Sum(nil))
}
