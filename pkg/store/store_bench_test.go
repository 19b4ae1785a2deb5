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

package store_test

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"

	"github.com/image-source/image-source-controller/pkg/store"
)

// BenchmarkPut stores files of 20 KiB: what nobody has stored before, and what
// another source has.
func BenchmarkPut(b *testing.B) {
	const size = 20 << 10
	noise := rand.NewChaCha8([32]byte{})
	content := make([]byte, size)
	b.Run("new", func(b *testing.B) {
		s := open(b, options(b.TempDir()))
		b.ReportAllocs()
		b.SetBytes(size)
		for b.Loop() {
			b.StopTimer()
			_, _ = noise.Read(content) // never fails
			b.StartTimer()
			store20KiB(b, s, app, content)
		}
	})
	b.Run("of another source", func(b *testing.B) {
		s := open(b, options(b.TempDir()))
		store20KiB(b, s, app, content)
		sum := sha256.Sum256(content)
		b.ReportAllocs()
		n := 0
		for b.Loop() {
			n++
			_, found, err := s.Link(b.Context(), store.Key{Namespace: "apps", Name: fmt.Sprint("app-", n)}, hex.EncodeToString(sum[:]))
			if err != nil || !found {
				b.Fatal(found, err)
			}
		}
	})
}

// store20KiB writes a file and puts it into the store, as the bridge does.
func store20KiB(b *testing.B, s *store.Store, key store.Key, content []byte) {
	b.Helper()
	dir, remove, err := s.Scratch()
	if err != nil {
		b.Fatal(err)
	}
	defer remove()
	sum := sha256.Sum256(content)
	file := store.File{Path: filepath.Join(dir, "artifact"), SHA256: hex.EncodeToString(sum[:]), Size: int64(len(content))}
	if err := os.WriteFile(file.Path, content, 0o600); err != nil {
		b.Fatal(err)
	}
	if _, err := s.Put(b.Context(), key, file); err != nil {
		b.Fatal(err)
	}
}

// BenchmarkHandler serves files over loopback to one consumer. The allocations
// are those of both.
func BenchmarkHandler(b *testing.B) {
	for name, size := range map[string]int{"20KiB": 20 << 10, "17MiB": 17 << 20} {
		b.Run(name, func(b *testing.B) {
			s := open(b, options(b.TempDir()))
			stored := put(b, s, app, string(make([]byte, size)))
			server := httptest.NewServer(s.Handler(store.HandlerOptions{}))
			defer server.Close()
			b.ReportAllocs()
			b.SetBytes(int64(size))
			for b.Loop() {
				response, err := server.Client().Get(server.URL + "/" + stored.Path)
				if err != nil {
					b.Fatal(err)
				}
				n, err := io.Copy(io.Discard, response.Body)
				response.Body.Close()
				if err != nil || n != int64(size) || response.StatusCode != http.StatusOK {
					b.Fatal(n, response.Status, err)
				}
			}
		})
	}
}
