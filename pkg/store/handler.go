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

package store

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"net/http"
	"os"
	"strings"
	"time"
)

const (
	// chunk is what a client must take within one progress timeout. Small
	// enough to let slow links live, large enough for sendfile.
	chunk = 128 << 10
	// retryAfter is what a client is told to wait, in seconds, when a file
	// cannot be had now.
	retryAfter = "5"

	defaultHoldTimeout     = time.Minute
	defaultProgressTimeout = 30 * time.Second
)

// PeerHeader marks a request of another replica, which is answered from this
// disk or not at all: a file that all of them lack is asked for once around, and
// not in circles.
const PeerHeader = "Image-Source-Peer"

// ErrNotPublished says of a file that no record names it: it is gone for good.
var ErrNotPublished = errors.New("not published")

// HandlerOptions are the seams and limits of serving.
type HandlerOptions struct {
	// Publishes tells, at no cost, whether anything is published under a key and
	// this file was not withdrawn, as far as is known here. Else a file that is on this
	// disk all the same counts as missing. Without it all that is on the disk is served.
	Publishes func(ctx context.Context, key Key, sha256 string) bool
	// Missing is asked for a file that is well named but not on this disk. It
	// returns nil when the file is there now, ErrNotPublished (404) when no record
	// names it, and any other error (503, which consumers retry) when it cannot be had
	// now. The request is held meanwhile. Without it every missing file is a 404.
	Missing func(ctx context.Context, key Key, sha256 string) error
	// Lacking is told of a file that another replica asked for in vain. It must
	// not block.
	Lacking func(ctx context.Context, key Key, sha256 string)
	// Observe is told the status code and the body's length of each answer.
	Observe func(code int, bytes int64)
	// HoldTimeout bounds Missing; zero is one minute.
	HoldTimeout time.Duration
	// ProgressTimeout is how long a client may take for 128 KiB of the body;
	// zero is 30 seconds.
	ProgressTimeout time.Duration
}

// Handler serves published files and nothing else. A path names its content,
// so an answer is good forever and its ETag is the digest.
func (s *Store) Handler(o HandlerOptions) http.Handler {
	if o.HoldTimeout <= 0 {
		o.HoldTimeout = defaultHoldTimeout
	}
	if o.ProgressTimeout <= 0 {
		o.ProgressTimeout = defaultProgressTimeout
	}
	return &handler{store: s, options: o}
}

type handler struct {
	store   *Store
	options HandlerOptions
}

// ServeHTTP implements http.Handler.
func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	answer := newResponse(w, h.options.ProgressTimeout)
	if h.options.Observe != nil {
		defer func() { h.options.Observe(answer.code, answer.bytes) }()
	}
	answer.Header().Set("X-Content-Type-Options", "nosniff")
	if r.ContentLength != 0 {
		answer.refuseBody()
	}
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		answer.Header().Set("Allow", "GET, HEAD")
		answer.refuse(http.StatusMethodNotAllowed)
		return
	}
	key, sha256, ok := requestedFile(r)
	if !ok {
		answer.refuse(http.StatusNotFound)
		return
	}
	f, code := h.find(r, key, sha256)
	if f == nil {
		answer.refuse(code)
		return
	}
	defer f.Close()
	header := answer.Header()
	header.Set("Content-Type", "application/gzip") // RFC 6713
	header.Set("Cache-Control", "public, max-age=31536000, immutable")
	header.Set("ETag", `"`+algorithm+":"+sha256+`"`)
	// No modification time: it differs between replicas, the bytes do not.
	http.ServeContent(answer, r, "", time.Time{}, f)
}

// requestedFile reads the path as it was written: what a path would mean after
// decoding or cleaning is not asked.
func requestedFile(r *http.Request) (key Key, sha256 string, ok bool) {
	p, ok := strings.CutPrefix(r.URL.Path, "/")
	if !ok || r.URL.RawPath != "" {
		return Key{}, "", false
	}
	return parsePath(p)
}

// find opens a published file, after it was made if need be; without a file
// it returns the status code that says why.
func (h *handler) find(r *http.Request, key Key, sha256 string) (*os.File, int) {
	ctx := r.Context()
	if h.options.Publishes == nil || h.options.Publishes(ctx, key, sha256) {
		f, err := h.store.openGood(ctx, key.file(sha256), sha256)
		if !errors.Is(err, fs.ErrNotExist) {
			return f, http.StatusServiceUnavailable
		}
	}
	if r.Header.Get(PeerHeader) != "" {
		if h.options.Lacking != nil {
			h.options.Lacking(ctx, key, sha256)
		}
		// Not 404: that would say that it is gone.
		return nil, http.StatusMisdirectedRequest
	}
	return h.make(ctx, key, sha256)
}

// make has a missing file made, and holds the request meanwhile.
func (h *handler) make(ctx context.Context, key Key, sha256 string) (*os.File, int) {
	if h.options.Missing == nil {
		return nil, http.StatusNotFound
	}
	ctx, cancel := context.WithTimeout(ctx, h.options.HoldTimeout)
	defer cancel()
	err := h.options.Missing(ctx, key, sha256)
	if errors.Is(err, ErrNotPublished) {
		return nil, http.StatusNotFound
	}
	if err != nil {
		return nil, http.StatusServiceUnavailable
	}
	f, _ := h.store.openGood(ctx, key.file(sha256), sha256) // without a file, the code says why
	return f, http.StatusServiceUnavailable
}

// response counts what is sent and gives the client a new deadline for each
// part of it, where the server's own would bound the whole.
type response struct {
	http.ResponseWriter
	control  *http.ResponseController
	progress time.Duration
	code     int
	bytes    int64
}

func newResponse(w http.ResponseWriter, progress time.Duration) *response {
	return &response{ResponseWriter: w, control: http.NewResponseController(w), progress: progress, code: http.StatusOK}
}

// extend ignores writers that know no deadlines: they have no slow client.
func (w *response) extend() { _ = w.control.SetWriteDeadline(time.Now().Add(w.progress)) }

// refuseBody bounds the reading of a body that nobody asked for: the server
// would wait for it before it takes the next request of the connection.
func (w *response) refuseBody() {
	w.Header().Set("Connection", "close")
	_ = w.control.SetReadDeadline(time.Now().Add(w.progress))
}

// refuse answers without a file. The words are the same for every cause: what
// is or is not stored here is no one's business.
func (w *response) refuse(code int) {
	w.Header().Set("Cache-Control", "no-store")
	if code == http.StatusServiceUnavailable {
		w.Header().Set("Retry-After", retryAfter)
	}
	http.Error(w, strings.ToLower(http.StatusText(code)), code)
}

// WriteHeader implements http.ResponseWriter.
func (w *response) WriteHeader(code int) {
	w.code = code
	w.extend()
	w.ResponseWriter.WriteHeader(code)
}

// Write implements http.ResponseWriter.
func (w *response) Write(p []byte) (int, error) {
	w.extend()
	n, err := w.ResponseWriter.Write(p)
	w.bytes += int64(n)
	return n, err
}

// ReadFrom implements io.ReaderFrom: it hands the file on in chunks, in the
// form in which the server's connection can use sendfile.
func (w *response) ReadFrom(src io.Reader) (int64, error) {
	limited, ok := src.(*io.LimitedReader)
	if !ok {
		return io.Copy(struct{ io.Writer }{w}, src)
	}
	var total int64
	for limited.N > 0 {
		w.extend()
		part := &io.LimitedReader{R: limited.R, N: min(limited.N, chunk)}
		n, err := io.Copy(w.ResponseWriter, part)
		limited.N -= n
		total += n
		w.bytes += n
		if err != nil || part.N > 0 {
			return total, err
		}
	}
	return total, nil
}
