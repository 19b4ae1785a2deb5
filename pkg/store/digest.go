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
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
)

// algorithm begins every digest that consumers are told. It is the one by which files
// are named, and the one of OCI layers.
const algorithm = "sha256"

// digits reads r to its end and returns its sha256 in hexadecimal digits, and its size.
func digits(r io.Reader) (digits string, size int64, err error) {
	sum := sha256.New()
	size, err = io.Copy(sum, r)
	return hex.EncodeToString(sum.Sum(nil)), size, err
}

// Limiter holds back the reading of n bytes; a *rate.Limiter of golang.org/x/time does.
type Limiter interface {
	WaitN(ctx context.Context, n int) error
}

// paced ends the reading of a file when nobody waits any more, and holds it back by the
// bytes that were read.
func paced(ctx context.Context, r io.Reader, pace Limiter) io.Reader {
	return readFunc(func(p []byte) (int, error) {
		if err := ctx.Err(); err != nil {
			return 0, err
		}
		n, err := r.Read(p)
		if pace == nil || n == 0 {
			return n, err
		}
		return n, cmp.Or(pace.WaitN(ctx, n), err)
	})
}

type readFunc func(p []byte) (int, error)

// Read implements io.Reader.
func (f readFunc) Read(p []byte) (int, error) { return f(p) }

// failing remembers that it was the reading that failed, and not the writing.
type failing struct {
	r   io.Reader
	err error
}

// Read implements io.Reader.
func (f *failing) Read(p []byte) (int, error) {
	n, err := f.r.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		f.err = err
	}
	return n, err
}
