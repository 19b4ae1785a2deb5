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

package git

import (
	"bufio"
	"bytes"
	"compress/zlib"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"path"
	"strconv"
	"strings"

	"github.com/pjbgf/sha1cd"

	"github.com/image-source/image-source-controller/pkg/limit"
)

// MaxObjectBytes is the size of the largest object that is read.
const MaxObjectBytes = 16 << 20

// ID is the name of an object: its hash, as bytes.
type ID string

// parseID reads an ID in hexadecimal.
func parseID(text string) (ID, error) {
	raw, err := hex.DecodeString(text)
	if err != nil || len(raw) != sha1cd.Size && len(raw) != sha256.Size {
		return "", fmt.Errorf("%q is no name of an object", text[:min(len(text), 2*sha256.Size)])
	}
	return ID(raw), nil
}

// String is the ID in hexadecimal.
func (id ID) String() string { return hex.EncodeToString([]byte(id)) }

// Algorithm is the name of the hash algorithm: sha1 or sha256.
func (id ID) Algorithm() string {
	if len(id) == sha256.Size {
		return "sha256"
	}
	return "sha1"
}

// BlobHash returns the hash to write the content of a file of so many bytes to:
// its sum is the name of that content, by the algorithm of the ID. Content that was
// made to have the SHA-1 of another one gets a sum that names nothing.
func (id ID) BlobHash(size int64) hash.Hash { return id.hash("blob", size) }

func (id ID) hash(kind string, size int64) hash.Hash {
	sum := newSHA1()
	if len(id) == sha256.Size {
		sum = sha256.New()
	}
	fmt.Fprintf(sum, "%s %d\x00", kind, size) // a hash never fails
	return sum
}

// safeSHA1 is SHA-1 as git computes it: it detects the known attacks on it.
type safeSHA1 struct{ sha1cd.CollisionResistantHash }

func newSHA1() hash.Hash {
	return safeSHA1{sha1cd.New().(sha1cd.CollisionResistantHash)} //nolint:forcetypeassert // the package says so
}

// Sum appends the hash, or zeros where what was written is half of a collision.
func (s safeSHA1) Sum(in []byte) []byte {
	sum, collision := s.CollisionResistantSum(in)
	if collision {
		clear(sum[len(in):])
	}
	return sum
}

var (
	errMissing  = errors.New("it is not in the repository, which may be a partial clone, or share the objects of another one")
	errTooLarge = fmt.Errorf("it has more than %d bytes", MaxObjectBytes)
	errCorrupt  = errors.New("it is corrupt")
)

// object is an object of a kind: blob, tree, commit or tag.
type object struct {
	kind string
	body []byte
}

// object reads an object and checks that it has its name.
func (r *Repository) object(ctx context.Context, id ID) (object, error) {
	if err := ctx.Err(); err != nil {
		return object{}, err
	}
	o, err := r.loose(id)
	if errors.Is(err, fs.ErrNotExist) {
		o, err = r.packed(ctx, id)
	}
	if err == nil {
		sum := id.hash(o.kind, int64(len(o.body)))
		sum.Write(o.body)
		if ID(sum.Sum(nil)) != id {
			err = errCorrupt
		}
	}
	if err != nil {
		return object{}, fmt.Errorf("object %s: %w", id, err)
	}
	return o, nil
}

// ofKind reads an object that must be of a kind.
func (r *Repository) ofKind(ctx context.Context, id ID, kind string) ([]byte, error) {
	o, err := r.object(ctx, id)
	if err == nil && o.kind != kind {
		err = fmt.Errorf("object %s is a %s, expected a %s", id, o.kind, kind)
	}
	return o.body, err
}

// loose reads an object that has a file of its own.
func (r *Repository) loose(id ID) (object, error) {
	name := id.String()
	file, err := limit.Open(r.common, path.Join("objects", name[:2], name[2:]))
	if err != nil {
		return object{}, err
	}
	defer file.Close()
	inflated, err := zlib.NewReader(bufio.NewReader(file))
	if err != nil {
		return object{}, errCorrupt
	}
	const longest = len("commit 18446744073709551615\x00")
	text := bufio.NewReaderSize(inflated, longest)
	header, err := text.ReadSlice(0)
	if err != nil {
		return object{}, errCorrupt
	}
	kind, length, _ := strings.Cut(string(header[:len(header)-1]), " ")
	size, err := strconv.ParseInt(length, 10, 64)
	if err != nil {
		return object{}, errCorrupt
	}
	body, err := readSized(text, size)
	return object{kind, body}, err
}

// readSized reads so many bytes, as an object must have.
func readSized(from io.Reader, size int64) ([]byte, error) {
	switch {
	case size < 0:
		return nil, errCorrupt
	case size > MaxObjectBytes:
		return nil, errTooLarge
	}
	// The buffer grows with the bytes read, not with the announced size.
	var body bytes.Buffer
	if n, err := io.CopyN(&body, from, size); err != nil || n != size {
		return nil, errCorrupt
	}
	return body.Bytes(), nil
}
