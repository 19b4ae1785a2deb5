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

package format_test

import (
	"context"
	"io"
	"log"
	"net/http/httptest"
	"os"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/types"
	. "github.com/onsi/gomega"

	"github.com/image-source/image-source-controller/pkg/format"
)

// serve starts a registry and returns its host.
func serve(t testing.TB) string {
	t.Helper()
	server := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	t.Cleanup(server.Close)
	return strings.TrimPrefix(server.URL, "http://")
}

// fetch reads back what a client wrote.
func fetch(t testing.TB, url string) (*format.Manifest, format.Blobs) {
	t.Helper()
	g := NewWithT(t)
	ref, err := name.ParseReference(url)
	g.Expect(err).NotTo(HaveOccurred())
	got, err := remote.Get(ref)
	g.Expect(err).NotTo(HaveOccurred())
	m, err := format.Parse(got.MediaType, got.Manifest)
	g.Expect(err).NotTo(HaveOccurred())
	return m, published{ref.Context(), t.TempDir()}
}

// published are blobs of a repository, spooled when they are opened.
type published struct {
	repository name.Repository
	spool      string
}

func (p published) Open(ctx context.Context, desc v1.Descriptor) (*os.File, error) {
	layer, err := remote.Layer(p.repository.Digest("sha256:"+desc.Digest.Hex), remote.WithContext(ctx))
	if err != nil {
		return nil, err
	}
	r, err := layer.Compressed()
	if err != nil {
		return nil, err
	}
	defer r.Close()
	f, err := os.CreateTemp(p.spool, "")
	if err != nil {
		return nil, err
	}
	if _, err := f.ReadFrom(r); err != nil {
		return nil, err
	}
	_, err = f.Seek(0, 0)
	return f, err
}

func (p published) Manifest(ctx context.Context, desc v1.Descriptor) (types.MediaType, []byte, error) {
	got, err := remote.Get(p.repository.Digest(desc.Digest.String()), remote.WithContext(ctx))
	if err != nil {
		return "", nil, err
	}
	return got.MediaType, got.Manifest, nil
}
