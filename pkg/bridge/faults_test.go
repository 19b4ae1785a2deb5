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
	"bytes"
	"context"
	"errors"
	"io/fs"
	"net/http"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/random"
	. "github.com/onsi/gomega"

	"github.com/image-source/image-source-controller/api/v1alpha1"
	"github.com/image-source/image-source-controller/pkg/bridge"
	"github.com/image-source/image-source-controller/pkg/fault"
	"github.com/image-source/image-source-controller/pkg/format"
	"github.com/image-source/image-source-controller/pkg/store"
	"github.com/image-source/image-source-controller/pkg/trust"
	"github.com/image-source/image-source-controller/test/publish"
)

func TestABlobThatContradictsItsManifestIsNotPublished(t *testing.T) {
	cases := map[string]struct {
		answer func(w http.ResponseWriter, good []byte)
		reason string
	}{
		"it is cut short": {
			answer: func(w http.ResponseWriter, good []byte) {
				w.Header().Set("Content-Length", strconv.Itoa(len(good)))
				_, _ = w.Write(good[:len(good)/2])
			},
			reason: v1alpha1.ReasonFetchFailed,
		},
		"it is shorter, and says so": {
			answer: func(w http.ResponseWriter, good []byte) { _, _ = w.Write(good[:len(good)-1]) },
			reason: v1alpha1.ReasonInvalidArtifact,
		},
		"it is longer": {
			answer: func(w http.ResponseWriter, good []byte) { _, _ = w.Write(append(bytes.Clone(good), 0)) },
			reason: v1alpha1.ReasonInvalidArtifact,
		},
		"it never ends": {
			answer: func(w http.ResponseWriter, good []byte) {
				for {
					if _, err := w.Write(good); err != nil {
						return
					}
				}
			},
			reason: v1alpha1.ReasonInvalidArtifact,
		},
		"it is altered": {
			answer: func(w http.ResponseWriter, good []byte) {
				altered := bytes.Clone(good)
				altered[len(altered)-1] ^= 1
				_, _ = w.Write(altered)
			},
			reason: v1alpha1.ReasonInvalidArtifact,
		},
		"it is another archive of the same length": {
			answer: func(w http.ResponseWriter, good []byte) { _, _ = w.Write(make([]byte, len(good))) },
			reason: v1alpha1.ReasonInvalidArtifact,
		},
		"it is gone": {
			answer: func(w http.ResponseWriter, _ []byte) { w.WriteHeader(http.StatusNotFound) },
			reason: v1alpha1.ReasonImageNotFound,
		},
		"the registry is overloaded": {
			answer: func(w http.ResponseWriter, _ []byte) { w.WriteHeader(http.StatusServiceUnavailable) },
			reason: v1alpha1.ReasonFetchFailed,
		},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			b, g := newBench(t), NewWithT(t)
			_, layer := b.push("team/app:1.0.0", publish.Files{"app.yaml": strings.Repeat("version: 1\n", 100)})
			good := b.blob("team/app", layer)
			b.answerBlobs(func(w http.ResponseWriter, _ *http.Request) { c.answer(w, good) })

			out, err := b.try(t.Context(), b.request("app", "team/app:1.0.0", nobody))
			expectFault(t, err, c.reason, fault.Retry)
			g.Expect(out.Artifact.URL).To(BeEmpty())
			b.expectNothingStored()

			b.registry.Answer(nil)
			g.Expect(b.publish(b.request("app", "team/app:1.0.0", nobody)).Artifact.Digest).To(Equal(layer.String()), "and a good answer heals it")
		})
	}
}

func TestAFailureLeavesThePublishedArtifactAlone(t *testing.T) {
	b, g := newBench(t), NewWithT(t)
	b.push("team/app:1.0.0", publish.Files{"app.yaml": "version: 1\n"})
	before := b.publish(b.request("app", "team/app:1.0.0", nobody))
	b.push("team/app:1.0.0", publish.Files{"app.yaml": "version: 2\n"})
	b.answerBlobs(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("nonsense")) })
	stored := b.stored()

	r := b.request("app", "team/app:1.0.0", nobody)
	r.Published = published(before)
	out, err := b.try(t.Context(), r)

	expectFault(t, err, v1alpha1.ReasonInvalidArtifact, fault.Retry)
	g.Expect(out.Image.Digest).NotTo(Equal(before.Image.Digest), "the outcome names the failed image")
	g.Expect(b.stored()).To(Equal(stored))
	g.Expect(b.leftovers()).To(BeEmpty())
}

func TestLimits(t *testing.T) {
	cases := map[string]struct {
		limits format.Limits
		pulled bool
		words  []string
	}{
		"a layer over the artifact's limit is not pulled": {limits: format.Limits{ArtifactBytes: 100}, words: []string{"--max-artifact-bytes"}},
		"more entries than allowed are refused":           {limits: format.Limits{Entries: 2}, pulled: true, words: []string{"--max-entries"}},
		"more bytes than allowed are not unpacked":        {limits: format.Limits{UncompressedBytes: 100}, pulled: true, words: []string{"--max-uncompressed-bytes"}},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			b, g := newBench(t), NewWithT(t)
			b.push("team/app:1.0.0", publish.Files{"a.yaml": "a: 1\n", "b.yaml": "b: 2\n", "c.yaml": strings.Repeat("c: 3\n", 500)})
			r := b.request("app", "team/app:1.0.0", nobody)
			r.Content.Limits = c.limits
			_, err := b.try(t.Context(), r)
			expectFault(t, err, v1alpha1.ReasonLimitExceeded, fault.Stall, c.words...)
			g.Expect(b.registry.Count(http.MethodGet, "/blobs/") > 0).To(Equal(c.pulled))
			b.expectNothingStored()
		})
	}
}

func TestOtherMediaTypesAreRefusedWithoutAPull(t *testing.T) {
	b, g := newBench(t), NewWithT(t)
	image, err := random.Image(100, 1)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(b.registry.Shelf().Push(t.Context(), "team/app:1.0.0", image)).To(Succeed())
	_, err = b.try(t.Context(), b.request("app", "team/app:1.0.0", nobody))
	expectFault(t, err, v1alpha1.ReasonUnsupportedMediaType, fault.Stall, "container image", "flux push artifact")
	b.expectNothingStored()
}

func TestAnUnverifiedImageIsNotPulled(t *testing.T) {
	b, g := newBench(t), NewWithT(t)
	b.push("team/app:1.0.0", publish.Files{"app.yaml": "version: 1\n"})

	t.Run("when the verifier refuses", func(t *testing.T) {
		r := b.request("app", "team/app:1.0.0", nobody)
		r.Verifier = refusing{fault.Retryf(v1alpha1.ReasonVerificationError, "no good signature")}
		_, err := b.try(t.Context(), r)
		expectFault(t, err, v1alpha1.ReasonVerificationError, fault.Retry)
	})
	t.Run("when a verifier returns the zero proof", func(t *testing.T) {
		r := b.request("app", "team/app:1.0.0", nobody)
		r.Verifier = refusing{nil}
		_, err := b.try(t.Context(), r)
		NewWithT(t).Expect(err).To(MatchError(ContainSubstring("without verification")))
	})
	t.Run("when a verifier proves another image", func(t *testing.T) {
		r := b.request("app", "team/app:1.0.0", nobody)
		r.Verifier = astray{}
		_, err := b.try(t.Context(), r)
		NewWithT(t).Expect(err).To(MatchError(ContainSubstring("without verification")))
	})
	g.Expect(b.registry.Count(http.MethodGet, "/blobs/")).To(BeZero())
	b.expectNothingStored()
}

func TestAnAttemptThatIsCancelledCleansUp(t *testing.T) {
	b, g := newBench(t), NewWithT(t)
	_, layer := b.push("team/app:1.0.0", publish.Files{"app.yaml": strings.Repeat("version: 1\n", 100)})
	good := b.blob("team/app", layer)
	half := make(chan struct{})
	b.answerBlobs(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", strconv.Itoa(len(good)))
		_, _ = w.Write(good[:len(good)/2])
		_ = http.NewResponseController(w).Flush()
		close(half)
		<-r.Context().Done()
	})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	r := b.request("app", "team/app:1.0.0", nobody)
	go func() {
		_, err := b.try(ctx, r)
		ended <- err
	}()
	g.Eventually(half).Should(BeClosed())
	g.Eventually(b.leftovers).ShouldNot(BeEmpty(), "the pull is under way")

	cancel()

	g.Eventually(ended).Should(Receive(MatchError(context.Canceled)))
	g.Eventually(b.leftovers).Should(BeEmpty())
	g.Expect(b.stored()).To(BeEmpty())
}

func TestADeadlineEndsAnAttempt(t *testing.T) {
	b, g := newBench(t), NewWithT(t)
	b.push("team/app:1.0.0", publish.Files{"app.yaml": "version: 1\n"})
	b.answerBlobs(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	ctx, cancel := context.WithTimeout(t.Context(), 200e6)
	defer cancel()
	_, err := b.try(ctx, b.request("app", "team/app:1.0.0", nobody))
	g.Expect(errors.Is(err, context.DeadlineExceeded)).To(BeTrue(), "%v", err)
	g.Eventually(b.leftovers).Should(BeEmpty())
	g.Expect(b.stored()).To(BeEmpty())
}

func TestADiskThatRefusesIsToldApartFromTheRegistry(t *testing.T) {
	b, g := newBench(t), NewWithT(t)
	b.push("team/app:1.0.0", publish.Files{"app.yaml": "version: 1\n"})
	moved := b.root + "-elsewhere"
	g.Expect(os.Rename(b.root, moved)).To(Succeed())

	_, err := b.try(t.Context(), b.request("app", "team/app:1.0.0", nobody))
	expectFault(t, err, v1alpha1.ReasonStorageOperationFailed, fault.Retry)

	g.Expect(os.Rename(moved, b.root)).To(Succeed())
	b.publish(b.request("app", "team/app:1.0.0", nobody))
}

// sweptStore is a store that loses the files of its scratch folders.
type sweptStore struct{ bridge.Store }

// Put implements bridge.Store.
func (s sweptStore) Put(ctx context.Context, key store.Key, file store.File) (store.Stored, error) {
	if err := os.Remove(file.Path); err != nil {
		return store.Stored{}, err
	}
	return s.Store.Put(ctx, key, file)
}

func TestWhyTheFileCannotBeStoredIsTold(t *testing.T) {
	b, g := newBench(t), NewWithT(t)
	b.push("team/app:1.0.0", publish.Files{"app.yaml": "version: 1\n"})
	r := b.request("app", "team/app:1.0.0", nobody)
	_, err := publishBy(t.Context(), bridge.New(sweptStore{b.store}, time.Now), r)
	expectFault(t, err, v1alpha1.ReasonStorageOperationFailed, fault.Retry)
	g.Expect(err).To(MatchError(fs.ErrNotExist))
	g.Expect(b.stored()).To(BeEmpty())
}

func TestAMalformedDigestIsRefusedBeforeARegistrySeesIt(t *testing.T) {
	b, g := newBench(t), NewWithT(t)
	r := b.request("app", "team/app:1.0.0", nobody)
	r.Digest = v1.Hash{Algorithm: "sha256", Hex: "../../../etc/passwd"}
	_, err := b.try(t.Context(), r)
	expectFault(t, err, v1alpha1.ReasonInvalidSpec, fault.Stall)
	g.Expect(b.registry.Requests()).To(BeEmpty())
}

// A proof is good for its image alone: no repository is opened without a proof, or with that
// of another image.
func TestBuildTakesNoProofButThatOfItsCandidate(t *testing.T) {
	b, g := newBench(t), NewWithT(t)
	b.push("team/app:1.0.0", publish.Files{"app.yaml": "version: 1\n"})
	_, layer := b.push("team/app:2.0.0", publish.Files{"app.yaml": "version: 2\n"})
	r, other := b.request("app", "team/app:1.0.0", nobody), b.request("app", "team/app:2.0.0", nobody)
	for _, r := range []*request{&r, &other} {
		candidates, err := bridge.Resolve(t.Context(), r.Repository, r.Reference)
		g.Expect(err).NotTo(HaveOccurred())
		g.Expect(candidates).To(HaveLen(1))
		r.Candidate = candidates[0]
	}
	ofOther, err := bridge.Verify(t.Context(), other.Repository, other.Candidate, trust.NoDemands{})
	g.Expect(err).NotTo(HaveOccurred())
	b.asked()
	for name, proof := range map[string]trust.Verified{"none": {}, "that of another image": ofOther} {
		_, err := b.bridge.Build(t.Context(), r.Request, proof)
		g.Expect(err).To(MatchError(ContainSubstring("without verification")), name)
		_, err = bridge.Read(t.Context(), r.Request, proof, t.TempDir())
		g.Expect(err).To(MatchError(ContainSubstring("without verification")), name)
	}
	g.Expect(b.asked()).To(BeEmpty())
	b.expectNothingStored()

	r.Candidate.Image = other.Candidate.Image
	out, err := b.bridge.Build(t.Context(), r.Request, ofOther)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(out.Artifact.Digest).To(Equal(layer.String()), "the manifest of the first is not taken for that of the other")
}
