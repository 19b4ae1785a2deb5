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

package bridge_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"

	"github.com/image-source/image-source-controller/pkg/bridge"
	"github.com/image-source/image-source-controller/pkg/registry"
	"github.com/image-source/image-source-controller/pkg/store"
	"github.com/image-source/image-source-controller/pkg/trust"
	"github.com/image-source/image-source-controller/test/publish"
)

// BenchmarkPublish carries small artifacts, 20 files of 2 KiB, from a registry in this
// process to the store: a new one each time, and one that is published already. The
// allocations are those of both.
func BenchmarkPublish(b *testing.B) {
	shelf := publish.Serve()
	defer shelf.Close()
	client, err := registry.NewClient(registry.Options{})
	if err != nil {
		b.Fatal(err)
	}
	stored, err := store.Open(store.Options{Root: b.TempDir(), AdvertisedAddress: advertised, RetentionTTL: time.Minute, RetentionRecords: 2})
	if err != nil {
		b.Fatal(err)
	}
	repository, err := name.NewRepository(shelf.Host() + "/app")
	if err != nil {
		b.Fatal(err)
	}
	asked := request{Verifier: trust.NoDemands{}, Request: bridge.Request{
		Key: store.Key{Namespace: "apps", Name: "app"}, Repository: client.Repository(repository, registry.Access{}),
	}}
	path := bridge.New(stored, time.Now)
	b.Run("new", func(b *testing.B) {
		b.ReportAllocs()
		n := 0
		for b.Loop() {
			b.StopTimer()
			n++
			asked.Tag = fmt.Sprint("new-", n)
			if _, err := shelf.Shelf().Flux(b.Context(), "app:"+asked.Tag, application(n)); err != nil {
				b.Fatal(err)
			}
			b.StartTimer()
			if _, err := publishBy(b.Context(), path, asked); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("unchanged", func(b *testing.B) {
		asked.Tag = "same"
		if _, err := shelf.Shelf().Flux(b.Context(), "app:same", application(-1)); err != nil {
			b.Fatal(err)
		}
		out, err := publishBy(b.Context(), path, asked)
		if err != nil {
			b.Fatal(err)
		}
		asked.Published = published(out)
		b.ReportAllocs()
		for b.Loop() {
			if _, err := publishBy(b.Context(), path, asked); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// application is 20 unique files of 2 KiB.
func application(n int) publish.Files {
	files := publish.Files{}
	for i := range 20 {
		line := fmt.Sprintf("version-%d-%d: true\n", n, i)
		files[fmt.Sprintf("app-%d.yaml", i)] = strings.Repeat(line, 2048/len(line))
	}
	return files
}
