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
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/image-source/image-source-controller/api/v1alpha1"
	"github.com/image-source/image-source-controller/pkg/fault"
)

// maxRetryAfter bounds how long a registry can put us off.
const maxRetryAfter = time.Hour

// answerError is an HTTP answer that is not what was asked for.
type answerError struct {
	code int
	// host is that of the answer, which a redirect may have made another.
	host string
	// text is the body as it came; only explain repeats any of it.
	text []byte
	// sent is the secret of the request, which the text may repeat.
	sent       string
	retryAfter time.Duration
	// ping is set for the answer to /v2/, which is about no image, and login for
	// that of a realm.
	ping, login bool
	// absent is set where ErrNotFound is the cause.
	absent bool
}

func (e *answerError) Error() string { return "the answer is " + status(e.code) }

func status(code int) string {
	return strings.TrimSpace(strconv.Itoa(code) + " " + http.StatusText(code))
}

// newAnswerError reads what an answer says about itself; the caller closes it.
func newAnswerError(answer *http.Response, now time.Time) *answerError {
	text, _ := io.ReadAll(io.LimitReader(answer.Body, maxAnswerBytes)) // what cannot be read is not said
	return &answerError{
		code: answer.StatusCode, host: answer.Request.URL.Host,
		text: text, sent: secretOf(answer.Request), retryAfter: retryAfter(answer.Header, now),
	}
}

// secretOf returns the credentials of a request, without their scheme.
func secretOf(request *http.Request) string {
	_, secret, _ := strings.Cut(request.Header.Get("Authorization"), " ")
	return secret
}

// words returns the errors of a registry's answer (Distribution Specification,
// section "Error Codes"), of a realm's (RFC 6749 section 5.2), or its text.
func words(text []byte) string {
	var known struct {
		Errors []struct {
			Code    string `json:"code"`
			Message string `json:"message"`
		} `json:"errors"`
		Details     string `json:"details"`
		Error       string `json:"error"`
		Description string `json:"error_description"`
	}
	if json.Unmarshal(text, &known) != nil {
		if bytes.HasPrefix(bytes.TrimSpace(text), []byte("{")) {
			return "" // too long or broken, and what is escaped in it cannot be judged
		}
		return string(text)
	}
	var said []string
	for _, e := range known.Errors {
		said = append(said, strings.Trim(e.Code+": "+e.Message, ": "))
	}
	for _, s := range []string{known.Details, known.Error, known.Description} {
		if s != "" {
			said = append(said, s)
		}
	}
	return strings.Join(said, "; ")
}

// retryAfter reads RFC 9110 section 10.2.3.
func retryAfter(header http.Header, now time.Time) time.Duration {
	value := header.Get("Retry-After")
	wait := time.Duration(0)
	if seconds, err := strconv.Atoi(value); err == nil {
		wait = time.Duration(min(seconds, int(maxRetryAfter/time.Second))) * time.Second
	} else if date, err := http.ParseTime(value); err == nil {
		wait = date.Sub(now)
	}
	return max(0, min(wait, maxRetryAfter))
}

// suspects are what must never be repeated: login headers, tokens, the users of
// URLs; long opaque words, which may be any of these, go too.
var suspects = []struct {
	pattern *regexp.Regexp
	instead string
}{
	{regexp.MustCompile(`(?i)\b(bearer|basic|negotiate)\s+[A-Za-z0-9._~+/=-]{4,}`), "$1 ***"},
	{regexp.MustCompile(`(?i)\b([a-z][a-z0-9+.-]*://)[^/\s"'@]*@`), "$1***@"},
	{regexp.MustCompile(`eyJ[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*(\.[A-Za-z0-9_-]*)?`), "***"},
	{regexp.MustCompile(`(?i)([a-z0-9_-]*(?:token|passwd|password|secret|signature|credentials?|api[_-]?key))(["']?\s*[:=]\s*["']?)[^\s"',;}]+`), "$1$2***"},
}

var (
	opaque = regexp.MustCompile(`[A-Za-z0-9+_=-]{40,}`)
	digits = regexp.MustCompile(`^[0-9a-f]{64}$`)
)

// clean makes another's words fit for a condition: fault.Words without the
// secrets that are known, and without anything that looks like one.
func clean(text string, known ...string) string {
	if len(text) >= maxAnswerBytes {
		text = text[:maxAnswerBytes] + ellipsis
	}
	text = without(text, known)
	text = without(fault.Plain(text), known) // one may have been hidden by what was removed
	for _, s := range suspects {
		text = s.pattern.ReplaceAllString(text, s.instead)
	}
	text = opaque.ReplaceAllStringFunc(text, func(word string) string {
		if digits.MatchString(word) {
			return word
		}
		return "***"
	})
	return unpart(fault.Words(text), known)
}

// without removes what is known to be secret, whatever it looks like.
func without(text string, known []string) string {
	for _, secret := range spellings(known) {
		text = strings.ReplaceAll(text, secret, "***")
	}
	return text
}

// spellings are those of secrets in messages, where some values are in quotes.
func spellings(secrets []string) (all []string) {
	for _, secret := range secrets {
		if len(secret) > 3 {
			quoted := strconv.Quote(secret)
			all = append(all, secret, quoted[1:len(quoted)-1])
		}
	}
	return all
}

// ellipsis stands for the rest of a text that was cut.
const ellipsis = "..."

// unpart removes from a message, which is short, what is known to be secret, and what
// is left of a secret in front of each place where a text was cut: who wrote the text
// chose that place.
func unpart(message string, known []string) string {
	parts := strings.SplitAfter(without(message, known), ellipsis)
	for i, part := range parts[:len(parts)-1] {
		text := strings.TrimSuffix(part, ellipsis)
		for _, secret := range spellings(known) {
			for n := min(len(secret), len(text)); n > 3; n-- {
				if strings.HasSuffix(text, secret[:n]) {
					text = text[:len(text)-n] + "***"
					break
				}
			}
		}
		parts[i] = text + ellipsis
	}
	return strings.Join(parts, "")
}

// failure turns an error into a fault. doing says what failed, as in "get
// manifest 1.0 of ghcr.io/org/app". One that already is a fault, and nil, stay
// as they are.
func (r *Repository) failure(doing string, err error) error {
	var f *fault.Error
	if err == nil || errors.As(err, &f) {
		return err
	}
	e := &fault.Error{Reason: v1alpha1.ReasonFetchFailed, Class: fault.Retry, Answered: isAnswer(err)}
	said := r.Explain(err)
	var answer *answerError
	var proxy *proxyAnswer
	switch {
	case errors.As(err, &answer):
		e.RetryAfter = answer.retryAfter
		e.Reason = r.reason(answer)
	case errors.As(err, &proxy) && proxy.code == http.StatusProxyAuthRequired:
		e.Reason = v1alpha1.ReasonAuthenticationFailed
	}
	e.Err = fmt.Errorf("cannot %s: %s%w", doing, said, silent{ended(err)})
	return e
}

// isAnswer tells whether an error is what a registry, or its realm, answered, or
// a request that its answer asked for and that was not sent.
func isAnswer(err error) bool {
	_, answered := errors.AsType[*answerError](err)
	_, unsent := errors.AsType[*refused](err)
	return answered || unsent
}

// reason says what the status of an answer means: what a registry's storage or
// a CDN behind it answers says nothing about credentials and names.
func (r *Repository) reason(answer *answerError) string {
	switch {
	case answer.code == http.StatusTooManyRequests || answer.code >= http.StatusInternalServerError:
		return v1alpha1.ReasonFetchFailed
	case answer.login, answer.code == http.StatusProxyAuthRequired:
		return v1alpha1.ReasonAuthenticationFailed
	case !strings.EqualFold(answer.host, r.access.host):
		return v1alpha1.ReasonFetchFailed
	case answer.code == http.StatusUnauthorized, answer.code == http.StatusForbidden:
		return v1alpha1.ReasonAuthenticationFailed
	case answer.code == http.StatusNotFound && !answer.ping:
		return v1alpha1.ReasonImageNotFound
	default:
		return v1alpha1.ReasonFetchFailed
	}
}

// silent adds an error to a chain without adding its words.
type silent struct{ err error }

func (silent) Error() string   { return "" }
func (s silent) Unwrap() error { return s.err }

// ended returns the end of a context that err came from, or ErrNotFound: the only
// causes that are safe to hand on as a value.
func ended(err error) error {
	if answer, ok := errors.AsType[*answerError](err); ok && answer.absent {
		return ErrNotFound
	}
	for _, end := range []error{context.Canceled, context.DeadlineExceeded} {
		if errors.Is(err, end) {
			return end
		}
	}
	return nil
}

// Explain says what went wrong with a request that RoundTripper was given and,
// where that is known, what helps: on one line, without secrets or addresses. A registry
// that leads to a host or a realm chooses its name, which may hold a secret, too.
func (r *Repository) Explain(err error) string {
	known := r.secrets()
	if answer, ok := errors.AsType[*answerError](err); ok {
		known = append(known, answer.sent)
	}
	return r.conceal(r.tell(err, known), known)
}

// Clean makes the words of a registry in answer to a request that RoundTripper was
// given fit for a message: on one line, and without secrets.
func (r *Repository) Clean(words string, request *http.Request) string {
	return clean(words, append(r.secrets(), secretOf(request))...)
}

// Conceal removes the credentials of this access from a message, which may repeat some
// of what the registry answered.
func (r *Repository) Conceal(message string) string { return r.conceal(message, r.secrets()) }

// conceal removes from a message what is known to be secret, but not from our own hints:
// they tell nothing, and a password that is a word of theirs would garble them.
func (r *Repository) conceal(message string, known []string) string {
	for _, hint := range r.client.options.Hints.all() {
		if before, after, found := strings.Cut(message, hint); found {
			return r.conceal(before, known) + hint + r.conceal(after, known)
		}
	}
	return unpart(message, known)
}

// secrets are the parts of a request that an answer must not repeat.
func (r *Repository) secrets() []string { return r.session.secrets(r.scope) }

func (r *Repository) tell(err error, known []string) string {
	var (
		rule      *refused
		answer    *answerError
		login     *loginError
		authority x509.UnknownAuthorityError
		hostname  x509.HostnameError
		invalid   x509.CertificateInvalidError
		lookup    *net.DNSError
		timeout   net.Error
		proxy     *proxyAnswer
		location  *url.Error
	)
	if errors.As(err, &login) {
		return fmt.Sprintf("login at %s failed: %s", fault.Quote(login.realm), r.tell(login.err, known))
	}
	for errors.As(err, &location) { // its words are the URL, query and all
		err = location.Err
	}
	hints := r.client.options.Hints
	switch {
	case errors.As(err, &rule):
		return clean(rule.Error(), known...)
	case errors.As(err, &answer):
		return r.explainAnswer(answer, known)
	case errors.As(err, &authority):
		return "its certificate is signed by an unknown authority: " + hints.Authority
	case errors.As(err, &hostname):
		return fmt.Sprintf("its certificate is not valid for the name %s", fault.Quote(hostname.Host))
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return "its certificate has expired or is not yet valid"
	case isPlainHTTP(err):
		return "it answers HTTPS with plain HTTP: " + hints.Plain
	case isAlert(err) && strings.Contains(err.Error(), "certificate"):
		return "it does not accept our client certificate: " + hints.Certificate
	case errors.As(err, &lookup) && lookup.IsNotFound:
		return fmt.Sprintf("there is no host %s", fault.Quote(lookup.Name))
	case errors.Is(err, errStalled):
		return fmt.Sprintf("the answer made no progress for %s", r.client.options.IdleTimeout)
	case errors.Is(err, context.Canceled):
		return "the attempt was cancelled"
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout():
		return "it took too long: " + clean(err.Error(), known...)
	case errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, io.EOF):
		return "the connection ended in the middle of the answer"
	case errors.As(err, &proxy) && proxy.code == http.StatusProxyAuthRequired:
		return fmt.Sprintf("%s (%s)", proxy, hints.Proxy)
	default:
		return clean(err.Error(), known...)
	}
}

func isPlainHTTP(err error) bool {
	var record tls.RecordHeaderError
	return errors.Is(err, http.ErrSchemeMismatch) || errors.As(err, &record)
}

// isAlert tells whether the other side ended the TLS handshake; the type of
// that error is not exported.
func isAlert(err error) bool { return strings.Contains(err.Error(), "remote error: tls: ") }

func (r *Repository) explainAnswer(answer *answerError, known []string) string {
	said, hints := answer.Error(), r.client.options.Hints
	if !answer.login && !answer.ping && !strings.EqualFold(answer.host, r.access.host) {
		said += " from " + fault.Quote(answer.host) + ", where the registry redirects to"
	}
	if words := clean(words(answer.text), known...); words != "" {
		said += fmt.Sprintf(": %q", words)
	}
	switch {
	case answer.code == http.StatusProxyAuthRequired:
		return fmt.Sprintf("%s (%s)", said, hints.Proxy)
	case answer.ping:
		return said + " (it should serve the API of a registry at /v2/)"
	case answer.code == http.StatusUnauthorized && r.reason(answer) == v1alpha1.ReasonAuthenticationFailed:
		return fmt.Sprintf("%s (%s)", said, hints.Credentials)
	default:
		return said
	}
}
