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
	"bufio"
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"net/http"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/klauspost/compress/zstd"

	"github.com/image-source/image-source-controller/pkg/limit"
)

// Proxies compress answers that were asked for as they are, and storage labels
// compressed blobs with a Content-Encoding. So the header is a hint only: the digest
// decides whether the bytes as sent or the decoded ones are meant.

// maxWindow bounds the memory of a decoder, in bytes.
const maxWindow = 8 << 20

var errNotCoded = errors.New("it is neither gzip nor zstd")

// coded tells whether an answer claims a Content-Encoding (RFC 9110 section 8.4).
func coded(header http.Header) bool {
	coding := header.Get("Content-Encoding")
	return coding != "" && !strings.EqualFold(coding, "identity")
}

// decoder undoes the compression that the first bytes tell.
func decoder(body io.Reader) (io.ReadCloser, error) {
	buffered := bufio.NewReader(body)
	start, _ := buffered.Peek(4) // a short body is not coded
	switch {
	case bytes.HasPrefix(start, []byte{0x1f, 0x8b}):
		return gzip.NewReader(buffered)
	case bytes.Equal(start, []byte{0x28, 0xb5, 0x2f, 0xfd}):
		plain, err := zstd.NewReader(buffered, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(maxWindow), zstd.WithDecoderLowmem(true))
		if err != nil {
			return nil, err
		}
		return plain.IOReadCloser(), nil
	default:
		return nil, errNotCoded
	}
}

// uncoded returns a body as it is meant, decoded within most bytes if need be. The
// digest is the one that the bytes must have; the zero hash if there is no such digest.
func uncoded(body []byte, digest v1.Hash, most int64) []byte {
	if digest != (v1.Hash{}) && has(body, digest) {
		return body
	}
	decoded, err := decoder(bytes.NewReader(body))
	if err != nil {
		return body
	}
	defer decoded.Close()
	text, err := limit.ReadAll(decoded, most)
	if err != nil || (digest != v1.Hash{} && !has(text, digest)) {
		return body
	}
	return text
}

func has(body []byte, digest v1.Hash) bool {
	computed, _, err := v1.SHA256(bytes.NewReader(body))
	return err == nil && computed == digest
}
