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
	"net/http"
	"net/netip"
	"strings"
)

// maxChallengeBytes bounds what is remembered of a challenge.
const maxChallengeBytes = 4 << 10

// challenge is how a registry wants its clients to log in: one challenge of a
// WWW-Authenticate header (RFC 9110 section 11.6.1).
type challenge struct {
	scheme  string // basic, bearer, or empty when no login is asked for
	realm   string
	service string
	// from is the address that asks for it, see trip.
	from netip.Addr
}

// challengeOf returns the first challenge of an answer that we can meet; the
// zero challenge when there is none.
func challengeOf(answer *http.Response) challenge {
	for _, line := range answer.Header.Values("WWW-Authenticate") {
		for _, c := range parseChallenges(line) {
			switch {
			case c.scheme == "basic":
				return challenge{scheme: "basic"}
			case c.scheme == "bearer" && c.realm != "" && len(c.realm)+len(c.service) <= maxChallengeBytes:
				// Copies: the rest of the header, which may be long, is not kept in memory.
				c = challenge{scheme: "bearer", realm: strings.Clone(c.realm), service: strings.Clone(c.service)}
				if t := tripOf(answer.Request.Context()); t != nil {
					c.from = t.at
				}
				return c
			}
		}
	}
	return challenge{}
}

// parseChallenges reads a list of challenges. A word that is followed by "=" is
// a parameter of the challenge before it, any other word starts a challenge.
func parseChallenges(line string) []challenge {
	var found []challenge
	for {
		line = strings.TrimLeft(line, " \t,")
		word, rest := cutToken(line)
		if word == "" {
			return found
		}
		rest = strings.TrimLeft(rest, " \t")
		if !strings.HasPrefix(rest, "=") {
			found = append(found, challenge{scheme: strings.ToLower(word)})
			line = rest
			continue
		}
		var value string
		value, line = cutValue(strings.TrimLeft(rest[1:], " \t"))
		if len(found) == 0 {
			continue
		}
		switch last := &found[len(found)-1]; strings.ToLower(word) {
		case "realm":
			last.realm = value
		case "service":
			last.service = value
		}
	}
}

// cutToken splits off a leading token (RFC 9110 section 5.6.2).
func cutToken(s string) (token, rest string) {
	end := strings.IndexFunc(s, func(r rune) bool {
		return r <= ' ' || r >= 0x7f || strings.ContainsRune(`()<>@,;:\"/[]?={}`, r)
	})
	if end < 0 {
		return s, ""
	}
	return s[:end], s[end:]
}

// cutValue splits off a leading quoted string or, leniently, anything up to the
// next comma: some registries do not quote their realm.
func cutValue(s string) (value, rest string) {
	if !strings.HasPrefix(s, `"`) {
		value, rest, _ = strings.Cut(s, ",")
		return strings.TrimSpace(value), rest
	}
	var b strings.Builder
	for i := 1; i < len(s); i++ {
		switch s[i] {
		case '"':
			return b.String(), s[i+1:]
		case '\\':
			if i++; i == len(s) {
				return b.String(), ""
			}
		}
		b.WriteByte(s[i])
	}
	return b.String(), ""
}
