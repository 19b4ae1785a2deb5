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

package trust_test

import (
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"

	"github.com/image-source/image-source-controller/pkg/registry"
	"github.com/image-source/image-source-controller/pkg/trust"
	"github.com/image-source/image-source-controller/test/publish"
)

// BenchmarkVerifyWithKey verifies one cosign signature by one key, which it reads
// from a registry in this process. The allocations are those of both.
func BenchmarkVerifyWithKey(b *testing.B) {
	shelf := publish.Serve()
	defer shelf.Close()
	artifact, err := shelf.Shelf().Flux(b.Context(), "app:1.0.0", publish.Files{"app.yaml": strings.Repeat("a: b\n", 100)})
	if err != nil {
		b.Fatal(err)
	}
	signer, err := publish.NewSigner()
	if err != nil {
		b.Fatal(err)
	}
	if err := shelf.Shelf().Sign(b.Context(), "app:1.0.0", signer); err != nil {
		b.Fatal(err)
	}
	digest, err := artifact.Digest()
	if err != nil {
		b.Fatal(err)
	}
	client, err := registry.NewClient(registry.Options{UserAgent: "benchmark"})
	if err != nil {
		b.Fatal(err)
	}
	parsed, err := name.NewRepository(shelf.Host() + "/app")
	if err != nil {
		b.Fatal(err)
	}
	authority, err := trust.NewAuthority(trust.Demand{
		Provider: trust.ProviderCosign, Secret: &trust.Secret{Data: map[string][]byte{"cosign.pub": signer.PublicKey}},
	}, trust.Options{})
	if err != nil {
		b.Fatal(err)
	}
	rules := trust.NewRules(client.Repository(parsed, registry.Access{}), rule(authority))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := rules.Verify(b.Context(), trust.Subject{Repository: parsed.Name(), Digest: digest}); err != nil {
			b.Fatal(err)
		}
	}
}
