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
	"context"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/static"
	. "github.com/onsi/gomega"

	"github.com/image-source/image-source-controller/pkg/bridge"
	"github.com/image-source/image-source-controller/pkg/fault"
	"github.com/image-source/image-source-controller/pkg/format"
	"github.com/image-source/image-source-controller/pkg/registry"
	"github.com/image-source/image-source-controller/pkg/store"
	"github.com/image-source/image-source-controller/pkg/trust"
	"github.com/image-source/image-source-controller/test/publish"
)

const advertised = "artifacts.example"

var noon = time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)

// bench is a bridge between a real registry and a real store.
type bench struct {
	*testing.T
	registry *publish.InProcess
	client   *registry.Client
	root     string
	store    *store.Store
	bridge   *bridge.Bridge
}

func newBench(t *testing.T) *bench {
	t.Helper()
	b := &bench{T: t, registry: publish.Serve(), root: t.TempDir()}
	t.Cleanup(b.registry.Close)
	b.reopen(advertised)
	return b
}

// reopen stands for a new process over the same disk.
func (b *bench) reopen(address string) {
	b.Helper()
	g := NewWithT(b)
	var err error
	b.client, err = registry.NewClient(registry.Options{})
	g.Expect(err).NotTo(HaveOccurred())
	if b.store != nil {
		g.Expect(b.store.Close()).To(Succeed())
	}
	b.store, err = store.Open(store.Options{Root: b.root, AdvertisedAddress: address, RetentionTTL: time.Minute, RetentionRecords: 2})
	g.Expect(err).NotTo(HaveOccurred())
	b.bridge = bridge.New(b.store, func() time.Time { return noon })
}

// scrub has the store read all its files until a key has lost its own, or the test fails.
func (b *bench) scrub() {
	b.Helper()
	ctx, cancel := context.WithTimeout(b.Context(), 30*time.Second)
	defer cancel()
	b.store.Scrub(ctx, store.ScrubOptions{Lost: func(context.Context, store.Key, string) { cancel() }})
	NewWithT(b).Expect(ctx.Err()).To(MatchError(context.Canceled))
}

// push stores files as a Flux artifact under repository:tag and returns the
// digests of its manifest and of its layer.
func (b *bench) push(image string, files publish.Files) (manifest, layer v1.Hash) {
	b.Helper()
	g := NewWithT(b)
	artifact, err := b.registry.Shelf().Flux(b.Context(), image, files)
	g.Expect(err).NotTo(HaveOccurred())
	return digests(b, artifact)
}

// pushLayers stores raw layers as a Flux artifact.
func (b *bench) pushLayers(image string, annotations map[string]string, layers ...[]byte) (manifest v1.Hash) {
	b.Helper()
	g := NewWithT(b)
	var all []v1.Layer
	for _, layer := range layers {
		all = append(all, static.NewLayer(layer, publish.FluxContent))
	}
	artifact, err := publish.FluxImage(all...)
	g.Expect(err).NotTo(HaveOccurred())
	if annotations != nil {
		artifact = mutate.Annotations(artifact, annotations).(v1.Image)
	}
	g.Expect(b.registry.Shelf().Push(b.Context(), image, artifact)).To(Succeed())
	manifest, err = artifact.Digest()
	g.Expect(err).NotTo(HaveOccurred())
	return manifest
}

func digests(t testing.TB, artifact v1.Image) (manifest, layer v1.Hash) {
	t.Helper()
	g := NewWithT(t)
	manifest, err := artifact.Digest()
	g.Expect(err).NotTo(HaveOccurred())
	layers, err := artifact.Layers()
	g.Expect(err).NotTo(HaveOccurred())
	layer, err = layers[0].Digest()
	g.Expect(err).NotTo(HaveOccurred())
	return manifest, layer
}

// open opens a repository of the registry as a user.
func (b *bench) open(repository string, who access) *registry.Repository {
	b.Helper()
	return b.openAt(b.registry.Host()+"/"+repository, who.access())
}

// openAt opens a repository wherever it is.
func (b *bench) openAt(repository string, access registry.Access) *registry.Repository {
	b.Helper()
	parsed, err := name.NewRepository(repository)
	NewWithT(b).Expect(err).NotTo(HaveOccurred())
	return b.client.Repository(parsed, access)
}

// access is a user with a password; empty for anonymous access.
type access struct{ user, password string }

func (a access) access() registry.Access {
	if a == (access{}) {
		return registry.Access{}
	}
	return registry.Access{Auth: &authn.Basic{Username: a.user, Password: a.password}, Fingerprint: a.user + " " + a.password}
}

var nobody = access{}

// request asks for an image to be published under one name.
type request struct {
	bridge.Request
	bridge.Reference

	Verifier  trust.Verifier
	Published *bridge.Published
}

// publishBy takes all steps for a request.
func publishBy(ctx context.Context, by *bridge.Bridge, r request) (bridge.Outcome, error) {
	candidates, err := bridge.Resolve(ctx, r.Repository, r.Reference)
	if err != nil {
		return bridge.Outcome{}, err
	}
	r.Candidate = candidates[0]
	out, ok, err := by.Reuse(ctx, r.Request, r.Published)
	if ok || err != nil {
		return out, err
	}
	proof, err := bridge.Verify(ctx, r.Repository, r.Candidate, r.Verifier)
	if err != nil {
		return out, err
	}
	return by.Build(ctx, r.Request, proof)
}

// reading is the result of reading an image.
type reading struct {
	candidate *bridge.Candidate
	bridge.Reading
}

// readBy takes all steps for a request that do not store.
func readBy(ctx context.Context, r request, scratch string) (found reading, err error) {
	candidates, err := bridge.Resolve(ctx, r.Repository, r.Reference)
	if err != nil {
		return found, err
	}
	r.Candidate, found.candidate = candidates[0], candidates[0]
	proof, err := bridge.Verify(ctx, r.Repository, r.Candidate, r.Verifier)
	if err != nil {
		return found, err
	}
	found.Reading, err = bridge.Read(ctx, r.Request, proof, scratch)
	return found, err
}

// request asks for repository:tag to be published as apps/<source>.
func (b *bench) request(source, image string, who access) request {
	b.Helper()
	repository, tag, _ := strings.Cut(image, ":")
	return request{
		Request:   bridge.Request{Key: store.Key{Namespace: "apps", Name: source}, Repository: b.open(repository, who)},
		Reference: bridge.Reference{Tag: tag},
		Verifier:  trust.NoDemands{},
	}
}

// try publishes.
func (b *bench) try(ctx context.Context, r request) (bridge.Outcome, error) {
	return publishBy(ctx, b.bridge, r)
}

// publish publishes and expects success.
func (b *bench) publish(r request) bridge.Outcome {
	b.Helper()
	out, err := b.try(b.Context(), r)
	NewWithT(b).Expect(err).NotTo(HaveOccurred())
	return out
}

// published is the outcome as a next request of the same source knows it.
func published(out bridge.Outcome) *bridge.Published {
	return &bridge.Published{
		Repository: out.Image.Repository,
		Digest:     out.Image.Digest,
		Content:    out.Content,
		Artifact:   out.Artifact,
		Format:     out.Format,
		VerifiedBy: out.VerifiedBy,
	}
}

// asked returns the requests since its last call, without those for the login.
func (b *bench) asked() []string {
	requests := slices.DeleteFunc(b.registry.Requests(), func(request string) bool { return request == "GET /v2/" })
	b.registry.Forget()
	return requests
}

// file returns the path of a published artifact on disk.
func (b *bench) file(out bridge.Outcome) string {
	return filepath.Join(b.root, filepath.FromSlash(out.Artifact.Path))
}

// stored lists every file below the storage path.
func (b *bench) stored() []string {
	b.Helper()
	var files []string
	err := filepath.WalkDir(b.root, func(path string, entry os.DirEntry, err error) error {
		if err == nil && !entry.IsDir() {
			relative, _ := filepath.Rel(b.root, path)
			files = append(files, relative)
		}
		return err
	})
	NewWithT(b).Expect(err).NotTo(HaveOccurred())
	return files
}

// leftovers lists the files in the folder for unfinished work.
func (b *bench) leftovers() []string {
	entries, err := os.ReadDir(filepath.Join(b.root, "tmp"))
	if err != nil && !os.IsNotExist(err) {
		return []string{err.Error()}
	}
	var names []string
	for _, entry := range entries {
		names = append(names, entry.Name())
	}
	return names
}

// expectNothingStored asserts that a failure left no byte behind.
func (b *bench) expectNothingStored() {
	b.Helper()
	g := NewWithT(b)
	g.Expect(b.stored()).To(BeEmpty())
	g.Expect(b.leftovers()).To(BeEmpty())
}

// expectFault asserts the identity of an error and the key words of its message.
func expectFault(t testing.TB, err error, reason string, class fault.Class, words ...string) {
	t.Helper()
	g := NewWithT(t)
	g.Expect(err).To(HaveOccurred())
	f := fault.Of(err, "none")
	g.Expect(f.Reason).To(Equal(reason), err.Error())
	g.Expect(f.Class).To(Equal(class), err.Error())
	for _, word := range words {
		g.Expect(err.Error()).To(ContainSubstring(word))
	}
}

// answerBlobs answers GETs of blobs in the registry's place.
func (b *bench) answerBlobs(handler http.HandlerFunc) {
	b.registry.Answer(func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method != http.MethodGet || !strings.Contains(r.URL.Path, "/blobs/") {
			return false
		}
		handler(w, r)
		return true
	})
}

// blob returns a blob as the registry keeps it.
func (b *bench) blob(repository string, digest v1.Hash) []byte {
	b.Helper()
	g := NewWithT(b)
	request, err := http.NewRequestWithContext(b.Context(), http.MethodGet, b.registry.URL+"/v2/"+repository+"/blobs/"+digest.String(), http.NoBody)
	g.Expect(err).NotTo(HaveOccurred())
	response, err := b.registry.Shelf().Transport.RoundTrip(request)
	g.Expect(err).NotTo(HaveOccurred())
	defer response.Body.Close()
	g.Expect(response.StatusCode).To(Equal(http.StatusOK))
	body, err := io.ReadAll(response.Body)
	g.Expect(err).NotTo(HaveOccurred())
	return body
}

// refusing is a verifier that accepts no image.
type refusing struct{ err error }

func (r refusing) Verify(context.Context, trust.Subject) (trust.Verified, error) {
	return trust.Verified{}, r.err
}

// astray proves a fact about an unrelated image.
type astray struct{}

func (astray) Verify(ctx context.Context, subject trust.Subject) (trust.Verified, error) {
	subject.Digest.Hex = strings.Repeat("0", 64)
	return trust.NoDemands{}.Verify(ctx, subject)
}

func settings(change func(*format.Options)) format.Options {
	var o format.Options
	change(&o)
	return o
}
