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

package e2e

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	imagev1 "github.com/fluxcd/image-reflector-controller/api/v1"
	"github.com/fluxcd/pkg/apis/meta"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"

	"github.com/image-source/image-source-controller/api/v1alpha1"
	"github.com/image-source/image-source-controller/test/controlplane"
	"github.com/image-source/image-source-controller/test/publish"
)

// demandToken makes a registry behind a gate want a token for each repository,
// as public registries do. Anybody gets one.
func (g *gate) demandToken() {
	g.answer(func(p passage) bool { return strings.HasPrefix(p.Path, "/v2/") && p.Authorization != "Bearer good" },
		func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm="%s/token",service="gate"`, g.URL))
			w.WriteHeader(http.StatusUnauthorized)
		})
	g.answer(does(http.MethodGet, "/token"), func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write([]byte(`{"token":"good","expires_in":3600}`)) // a client that is gone is fine
	})
}

// spent returns what the controller asked a registry since the last time,
// shortened to what differs.
func (g *gate) spent(n *tenant, image string) []string {
	var spent []string
	for _, p := range g.seen(byUs) {
		path := strings.TrimPrefix(p.Path, "/v2/"+n.image(image))
		for _, kind := range []string{"/blobs/sha256:", "/manifests/sha256:", "/manifests/sha256-", "/referrers/sha256:"} {
			if hash, ok := strings.CutPrefix(path, kind); ok {
				path = kind + hash[min(len(hash), 64):]
			}
		}
		spent = append(spent, p.Method+" "+path)
	}
	g.forget()
	return spent
}

// What a registry is asked for one source is what it must be, and no more.
func TestRequestsOfOneSource(t *testing.T) {
	t.Parallel()
	n := newTenant(t, v1alpha1.UseAsSourceEnabled)
	gate := newGate(t, env.Registry().URL())
	gate.demandToken()
	n.push(app, "1.0.0", configMap(n.namespace, "1.0.0"))
	n.scan(app, through(n, gate.host(), app), notAnnotated)
	n.picked(app, "1.0.0")

	n.writtenByHand(app)
	n.published(app, "1.0.0")
	n.Expect(gate.spent(n, app)).To(Equal([]string{"GET /v2/", "GET /token", "GET /manifests/1.0.0", "GET /blobs/sha256:"}), "the first version")

	n.push(app, "1.1.0", configMap(n.namespace, "1.1.0"))
	n.published(app, "1.1.0")
	n.Expect(gate.spent(n, app)).To(Equal([]string{"GET /manifests/1.1.0", "GET /blobs/sha256:"}), "a new version")

	n.reconciled(app)
	n.Expect(gate.spent(n, app)).To(Equal([]string{"HEAD /manifests/1.1.0"}), "a request, when nothing changed")

	moved := n.push(app, "1.1.0", configMap(n.namespace, "moved"))
	n.reconciled(app)
	n.published(app, moved)
	n.Expect(gate.spent(n, app)).To(Equal([]string{"HEAD /manifests/1.1.0", "GET /manifests/sha256:", "GET /blobs/sha256:"}), "a tag that moved")

	n.push(app, "1.2.0", configMap(n.namespace, "moved"))
	n.eventually(func(g Gomega) {
		obj := named(n, app, &v1alpha1.ArtifactRepository{})
		g.Expect(env.Client.Get(n.Context(), n.key(app), obj)).To(Succeed())
		g.Expect(obj.Status.LatestRef.Tag).To(Equal("1.2.0"))
	})
	n.published(app, moved) // a tag of the same digest is nothing to deploy
	n.Expect(gate.spent(n, app)).To(Equal([]string{"GET /manifests/1.2.0"}), "another tag of the same content")
}

// To verify a new version costs the requests for its signatures besides, and no
// other login.
func TestRequestsOfAVerifiedSource(t *testing.T) {
	t.Parallel()
	listed := publish.ServeReferrers()
	t.Cleanup(listed.Close)
	const list, tag, legacy, manifest, blob = "GET /referrers/sha256:", "GET /manifests/sha256-", "GET /manifests/sha256-.sig", "GET /manifests/sha256:", "GET /blobs/sha256:"
	for name, test := range map[string]struct {
		registry string
		sign     func(publish.Registry, context.Context, string, *publish.Signer) error
		costs    []string
	}{
		"a bundle that the registry lists": {listed.URL, publish.Registry.SignBundle, []string{list, manifest, blob}},
		"a bundle under the fallback tag":  {env.Registry().URL(), publish.Registry.SignBundle, []string{list, tag, manifest, blob}},
		"a legacy signature":               {env.Registry().URL(), publish.Registry.Sign, []string{list, tag, legacy, blob}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := newTenant(t, v1alpha1.UseAsSourceEnabled)
			gate := newGate(t, test.registry)
			gate.demandToken()
			registry := publish.Registry{Host: strings.TrimPrefix(test.registry, "http://")}
			signer, err := publish.NewSigner()
			n.Expect(err).NotTo(HaveOccurred())
			n.secret("keys", corev1.SecretTypeOpaque, map[string]string{"cosign.pub": string(signer.PublicKey)})
			push := func(version string) {
				image := n.image(app) + ":" + version
				n.pushTo(registry, image, configMap(n.namespace, version))
				n.Expect(test.sign(registry, n.Context(), image, signer)).To(Succeed())
			}
			push("1.0.0")
			obj := named(n, app, &v1alpha1.ArtifactRepository{})
			obj.Spec.Image, obj.Spec.Tag, obj.Spec.Insecure = gate.host()+"/"+n.image(app), "1.0.0", true
			obj.Spec.Interval = &metav1.Duration{Duration: time.Hour}
			obj.Spec.Verify = &sourcev1.OCIRepositoryVerification{Provider: "cosign", SecretRef: &meta.LocalObjectReference{Name: "keys"}}
			n.create(obj)
			n.published(app, "1.0.0")
			costs := func(resolved ...string) []string { return slices.Concat(resolved, test.costs, []string{blob}) }
			n.Expect(gate.spent(n, app)).To(Equal(costs("GET /v2/", "GET /token", "GET /manifests/1.0.0")), "the first version")

			push("1.1.0")
			change(n, obj, func(obj *v1alpha1.ArtifactRepository) { obj.Spec.Tag = "1.1.0" })
			n.published(app, "1.1.0")
			n.Expect(gate.spent(n, app)).To(Equal(costs("GET /manifests/1.1.0")), "a new version")

			n.reconciled(app)
			n.Expect(gate.spent(n, app)).To(Equal([]string{"HEAD /manifests/1.1.0"}), "a request, when nothing changed")
		})
	}
}

// When nothing changes, a tag costs one HEAD for each interval, and a digest
// that the policy reflects costs nothing.
func TestRequestsWhenNothingChanges(t *testing.T) {
	t.Parallel()
	const interval = 3 * time.Second
	const jitter = interval / 20 // of Flux: 5 percent, and it can go either way
	n := newTenant(t, v1alpha1.UseAsSourceEnabled)
	gate := newGate(t, env.Registry().URL())
	for _, name := range []string{"tag", "digest"} {
		n.push(name, "1.0.0", configMap(n.namespace, name))
		n.scan(name, through(n, gate.host(), name), every(interval), func(_ *imagev1.ImageRepository, policy *imagev1.ImagePolicy) {
			if name == "digest" {
				policy.Spec.DigestReflectionPolicy = imagev1.ReflectAlways
				policy.Spec.Interval = &metav1.Duration{Duration: interval}
			}
		})
	}
	n.published("tag", "1.0.0")
	n.published("digest", "1.0.0")

	gate.forget()
	var asked []passage
	n.eventually(func(g Gomega) {
		asked = gate.seen(all(byUs, has(http.MethodHead, n.image("tag"))))
		g.Expect(len(asked)).To(BeNumerically(">=", 5))
	})
	for i := range asked[1:] {
		n.Expect(asked[i+1].At.Sub(asked[i].At)).To(BeNumerically(">=", interval-jitter-50*time.Millisecond), "between two HEADs")
	}
	for _, p := range gate.seen(byUs) {
		n.Expect(p.String()).To(Equal("HEAD /v2/"+n.image("tag")+"/manifests/1.0.0"), "nothing else is asked")
	}
	policies := gate.seen(func(p passage) bool { return !byUs(p) })
	n.Expect(policies).NotTo(BeEmpty(), "the gate sees image-reflector-controller too")
}

// Many sources of one tag cost no more than one.
func TestRequestsOfManySources(t *testing.T) {
	t.Parallel()
	const (
		sources  = 50
		interval = 3 * time.Second
		// An answer serves all sources of a tag for nine tenths of the interval.
		fresh = interval * 9 / 10
	)
	n := newTenant(t, v1alpha1.UseAsSourceAll)
	gate := newGate(t, env.Registry().URL())
	gate.demandToken()
	n.push(app, "1.0.0", configMap(n.namespace, "1.0.0"))
	n.pullSecret("pull", gate.host(), login{username, password})
	n.scan(app, through(n, gate.host(), app), every(interval), func(repository *imagev1.ImageRepository, _ *imagev1.ImagePolicy) {
		repository.Spec.SecretRef = &meta.LocalObjectReference{Name: "pull"}
	})
	for i := range sources - 1 {
		policy := named(n, fmt.Sprint(app, "-", i), &imagev1.ImagePolicy{})
		policy.Spec.ImageRepositoryRef.Name = app
		policy.Spec.Policy.SemVer = &imagev1.SemVerPolicy{Range: ">=0.0.0"}
		n.create(policy)
	}
	everywhere := func(version string) {
		n.eventually(func(g Gomega) {
			var list sourcev1.ExternalArtifactList
			g.Expect(env.Client.List(t.Context(), &list, client.InNamespace(n.namespace))).To(Succeed())
			g.Expect(list.Items).To(HaveLen(sources))
			for _, external := range list.Items {
				g.Expect(external.Status.Artifact).NotTo(BeNil(), external.Name)
				g.Expect(external.Status.Artifact.Revision).To(HavePrefix(version+"@"), external.Name)
			}
		})
	}
	cost := func(method, part string) int { return len(gate.seen(all(byUs, has(method, part)))) }
	everywhere("1.0.0")
	n.Expect(cost(http.MethodGet, "/manifests/")).To(Equal(1), gate.tail())
	n.Expect(cost(http.MethodGet, "/blobs/")).To(Equal(1), gate.tail())
	n.Expect(cost(http.MethodGet, "/token")).To(Equal(1))
	n.Expect(len(gate.seen(func(p passage) bool { return byUs(p) && p.Path == "/v2/" }))).To(Equal(1))

	gate.forget()
	var asked []passage
	n.eventually(func(g Gomega) {
		asked = gate.seen(all(byUs, has(http.MethodHead, "/manifests/1.0.0")))
		g.Expect(len(asked)).To(BeNumerically(">=", 4))
	})
	for i := range asked[1:] {
		n.Expect(asked[i+1].At.Sub(asked[i].At)).To(BeNumerically(">=", fresh-50*time.Millisecond), "between two HEADs of %d sources", sources)
	}
	n.Expect(cost(http.MethodGet, "/")).To(BeZero(), "nothing changed")

	gate.forget()
	n.push(app, "1.1.0", configMap(n.namespace, "1.1.0"))
	everywhere("1.1.0")
	n.Expect(cost(http.MethodGet, "/manifests/")).To(Equal(1), gate.tail())
	n.Expect(cost(http.MethodGet, "/blobs/")).To(Equal(1), gate.tail())
}

// Who names a private image without a credential for it gets nothing of it,
// although the same bytes are stored for somebody who has one.
func TestStoredBytesAreNotShared(t *testing.T) {
	t.Parallel()
	owner := newTenant(t, v1alpha1.UseAsSourceEnabled)
	registry, push := owner.startRegistry(controlplane.RegistryOptions{Username: username, Password: password})
	gate := newGate(t, registry.URL())
	push.Host = registry.Host()
	owner.pushTo(push, owner.image(app)+":1.0.0", configMap(owner.namespace, "secret"))
	private := func(n *tenant, secret string) func(*imagev1.ImageRepository, *imagev1.ImagePolicy) {
		n.pullSecret("pull", gate.host(), login{username, password})
		return func(repository *imagev1.ImageRepository, _ *imagev1.ImagePolicy) {
			repository.Spec.Image = gate.host() + "/" + owner.image(app)
			if secret != "" {
				repository.Spec.SecretRef = &meta.LocalObjectReference{Name: secret}
			}
		}
	}
	owner.scan(app, private(owner, "pull"))
	owner.published(app, "1.0.0")

	// Without the secret from the start Flux cannot even scan.
	stranger := newTenant(t, v1alpha1.UseAsSourceEnabled)
	stranger.scan("never", private(stranger, ""))
	// Without it from now on the policy goes on picking what was scanned.
	stranger.scan("once", private(stranger, "pull"), notAnnotated)
	stranger.picked("once", "1.0.0")
	change(stranger, named(stranger, "once", &imagev1.ImageRepository{}), func(repository *imagev1.ImageRepository) {
		repository.Spec.SecretRef = nil
	})
	gate.forget()
	stranger.annotate(named(stranger, "once", &imagev1.ImagePolicy{}), v1alpha1.UseAsSource, v1alpha1.UseAsSourceTrue)

	for _, name := range []string{"never", "once"} {
		obj, ready := stranger.notReady(name, v1alpha1.ReasonAuthenticationFailed)
		stranger.Expect(ready.Message).NotTo(ContainSubstring(password))
		stranger.Expect(obj.Status.Artifact).To(BeNil())
		stranger.Expect(stranger.stored(name)).To(BeEmpty())
		stranger.unpublished(name)
	}
	for _, p := range gate.seen(byUs) {
		if p.Authorization == "" {
			stranger.Expect(p.Code).To(Equal(http.StatusUnauthorized), p.String())
		}
	}
	stranger.Expect(gate.seen(all(byUs, has(http.MethodGet, "/blobs/")))).To(BeEmpty())
	owner.Expect(owner.reconciled(app).Status.Artifact).NotTo(BeNil(), "the owner is not disturbed")
	owner.served(owner.published(app, "1.0.0"))
}
