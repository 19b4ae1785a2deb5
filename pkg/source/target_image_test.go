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

package source_test

import (
	"strings"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	imagev1 "github.com/fluxcd/image-reflector-controller/api/v1"
	"github.com/fluxcd/pkg/apis/meta"

	"github.com/image-source/image-source-controller/api/v1alpha1"
	"github.com/image-source/image-source-controller/pkg/access"
	"github.com/image-source/image-source-controller/pkg/fault"
	"github.com/image-source/image-source-controller/pkg/source"
)

// proposal is an ArtifactRepository with an image, and its related objects. A new one
// requests ghcr.io/org/app:1.0.0.
type proposal struct {
	spec   v1alpha1.ArtifactRepositorySpec
	label  map[string]string
	around source.Snapshot
}

func newProposal() *proposal {
	return &proposal{
		spec:  v1alpha1.ArtifactRepositorySpec{Image: "ghcr.io/org/app", Tag: "1.0.0"},
		label: map[string]string{v1alpha1.UseAsSource: v1alpha1.UseAsSourceEnabled},
	}
}

func (p *proposal) decide() result {
	p.around.Namespace = &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "apps", Labels: p.label}}
	obj := &v1alpha1.ArtifactRepository{ObjectMeta: metav1.ObjectMeta{Namespace: "apps", Name: "app", UID: "1"}, Spec: p.spec}
	p.around.Object = obj
	return decide(source.Rules{NamespaceOptIn: source.NamespaceOptInLabel}, p.around)
}

// byPolicy adds a policy to the spec, with a pick.
func (p *proposal) byPolicy(tag string) {
	p.spec.Tag = ""
	p.spec.Policy = &imagev1.ImagePolicyChoice{SemVer: &imagev1.SemVerPolicy{Range: "1.x"}}
	owned := metav1.ObjectMeta{Namespace: "apps", Name: "app", Generation: 2, OwnerReferences: controlledBy("app", "1")}
	p.around.OwnRepository = &imagev1.ImageRepository{
		ObjectMeta: owned,
		Spec:       imagev1.ImageRepositorySpec{Image: p.spec.Image, Interval: metav1.Duration{Duration: time.Minute}},
	}
	p.around.OwnPolicy = &imagev1.ImagePolicy{
		ObjectMeta: owned,
		Spec:       imagev1.ImagePolicySpec{ImageRepositoryRef: meta.NamespacedObjectReference{Name: "app"}},
		Status: imagev1.ImagePolicyStatus{
			ObservedGeneration: 2,
			LatestRef:          &imagev1.ImageRef{Name: "ghcr.io/org/app", Tag: tag},
			Conditions:         []metav1.Condition{{Type: meta.ReadyCondition, Status: metav1.ConditionTrue, ObservedGeneration: 2}},
		},
	}
	p.around.Repository, p.around.Policy = p.around.OwnRepository, p.around.OwnPolicy
}

func TestPublishedTargetsOfAnImage(t *testing.T) {
	expectPublished(t, newProposal, map[string]publishedCase[*proposal]{
		"a tag, with any digest": {
			want: func(g Gomega, p result) {
				g.Expect(p.Repository.Name()).To(Equal("ghcr.io/org/app"))
				g.Expect(p.Tag).To(Equal("1.0.0"))
				g.Expect(p.Digest.Hex).To(BeEmpty())
				g.Expect(p.Note).To(BeEmpty())
			},
		},
		"a digest, with no tag and no note": {
			change: func(p *proposal) { p.spec.Tag, p.spec.Digest = "", digestA },
			want: func(g Gomega, p result) {
				g.Expect(p.Digest.String()).To(Equal(digestA))
				g.Expect(p.Tag).To(BeEmpty())
				g.Expect(p.Note).To(BeEmpty())
			},
		},
		"a digest under the tag beside it": {
			change: func(p *proposal) { p.spec.Digest = digestA },
			want: func(g Gomega, p result) {
				g.Expect(p.Digest.String()).To(Equal(digestA))
				g.Expect(p.Tag).To(Equal("1.0.0"))
				g.Expect(p.Note).To(BeEmpty())
			},
		},
		"an image with the prefix of Flux's sources": {
			change: func(p *proposal) { p.spec.Image = "oci://localhost:5000/org/app" },
			want: func(g Gomega, p result) {
				g.Expect(p.Repository.Name()).To(Equal("localhost:5000/org/app"))
			},
		},
		"an image at an IPv6 address": {
			change: func(p *proposal) { p.spec.Image = "[fd00::1]:5000/org/app" },
			want: func(g Gomega, p result) {
				g.Expect(p.Repository.RegistryStr()).To(Equal("[fd00::1]:5000"))
				g.Expect(p.Repository.RepositoryStr()).To(Equal("org/app"))
			},
		},
		"an image without a host": {
			change: func(p *proposal) { p.spec.Image = "nginx" },
			want: func(g Gomega, p result) {
				g.Expect(p.Repository.Name()).To(Equal("index.docker.io/library/nginx"))
			},
		},
		"with the access of the spec, from Secrets of its own namespace": {
			change: func(p *proposal) {
				p.spec.Provider, p.spec.ServiceAccountName, p.spec.Insecure = "gcp", "puller", true
				p.spec.SecretRef = &meta.LocalObjectReference{Name: "login"}
				p.spec.CertSecretRef = &meta.LocalObjectReference{Name: "certs"}
				p.spec.ProxySecretRef = &meta.LocalObjectReference{Name: "proxy"}
			},
			want: func(g Gomega, p result) {
				g.Expect(p.Access).To(Equal(access.References{
					Namespace: "apps", Provider: "gcp", SecretName: "login", CertSecretName: "certs",
					ProxySecretName: "proxy", ServiceAccountName: "puller", Insecure: true,
				}))
				g.Expect(p.Repository.Scheme()).To(Equal("http"))
			},
		},
		"each ten minutes": {
			want: func(g Gomega, p result) { g.Expect(p.interval).To(Equal(10 * time.Minute)) },
		},
		"each interval of its own": {
			change: func(p *proposal) { p.spec.Interval = &metav1.Duration{Duration: time.Hour} },
			want:   func(g Gomega, p result) { g.Expect(p.interval).To(Equal(time.Hour)) },
		},
		"a tag beside unneeded image objects of another owner": {
			change: func(p *proposal) {
				p.around.OwnPolicy = &imagev1.ImagePolicy{ObjectMeta: metav1.ObjectMeta{Namespace: "apps", Name: "app"}}
				p.around.OwnRepository = &imagev1.ImageRepository{ObjectMeta: metav1.ObjectMeta{Namespace: "apps", Name: "app"}}
			},
		},
		"the pick of its own policy, with the access of its ImageRepository": {
			change: func(p *proposal) {
				p.byPolicy("1.2.0")
				p.around.OwnRepository.Spec.SecretRef = &meta.LocalObjectReference{Name: "login"}
			},
			want: func(g Gomega, p result) {
				g.Expect(p.Tag).To(Equal("1.2.0"))
				g.Expect(p.Access.SecretName).To(Equal("login"))
				g.Expect(p.Access.Namespace).To(Equal("apps"))
			},
		},
		"the pick of its own policy, although an edit made the policy refer to another namespace": {
			change: func(p *proposal) {
				p.byPolicy("1.2.0")
				p.around.OwnPolicy.Spec.ImageRepositoryRef = meta.NamespacedObjectReference{Name: "app", Namespace: "elsewhere"}
			},
			want: func(g Gomega, p result) { g.Expect(p.Tag).To(Equal("1.2.0")) },
		},
		"the pin beside its own policy, with the pick in the note": {
			change: func(p *proposal) { p.byPolicy("1.2.0"); p.spec.Digest = digestB },
			want: func(g Gomega, p result) {
				g.Expect(p.Digest.String()).To(Equal(digestB))
				g.Expect(p.Tag).To(BeEmpty())
				g.Expect(p.Note).To(Equal("pinned by spec.digest; ImagePolicy app would pick 1.2.0"))
			},
		},
		"the pin before its own policy was evaluated": {
			change: func(p *proposal) { p.byPolicy(""); p.spec.Digest, p.around.OwnPolicy.Status.LatestRef = digestB, nil },
			want: func(g Gomega, p result) {
				g.Expect(p.Digest.String()).To(Equal(digestB))
				g.Expect(p.Note).To(Equal("pinned by spec.digest; ImagePolicy app has picked no image"))
			},
		},
	})
}

func TestRefusedTargetsOfAnImage(t *testing.T) {
	expectRefused(t, newProposal, map[string]refusedCase[*proposal]{
		"a namespace without the label": {
			change: func(p *proposal) { p.label = nil },
			action: withdraw, reason: v1alpha1.ReasonAccessDenied, class: fault.Wait, words: []string{v1alpha1.UseAsSource + "=enabled"},
		},
		"a typo in the label keeps the artifact and publishes no new one": {
			change: func(p *proposal) { p.label[v1alpha1.UseAsSource] = "yes" },
			action: refuse, reason: v1alpha1.ReasonAccessDenied, class: fault.Wait, words: []string{`"yes"`},
		},
		"a typo in the label keeps the pick of its own policy": {
			change: func(p *proposal) { p.byPolicy("1.2.0"); p.label[v1alpha1.UseAsSource] = "yes" },
			action: refuse, reason: v1alpha1.ReasonAccessDenied, class: fault.Wait, words: []string{`"yes"`},
		},
		"an image that no registry can have": {
			change: func(p *proposal) { p.spec.Image = "ghcr.io/" + strings.Repeat("a", 300) },
			action: refuse, reason: v1alpha1.ReasonInvalidSpec, class: fault.Stall, words: []string{"spec.image", "ghcr.io/org/app"},
		},
		"an invalid digest": {
			change: func(p *proposal) { p.spec.Tag, p.spec.Digest = "", "sha256:abc" },
			action: refuse, reason: v1alpha1.ReasonInvalidSpec, class: fault.Stall, words: []string{"spec.digest", "64 hexadecimal digits"},
		},
		"an ImageRepository of another owner under its name": {
			change: func(p *proposal) { p.byPolicy("1.2.0"); p.around.OwnRepository.OwnerReferences = nil },
			action: refuse, reason: v1alpha1.ReasonNameConflict, class: fault.Wait, words: []string{"ImageRepository app"},
		},
		"an ImagePolicy of another ArtifactRepository where its own has to be": {
			change: func(p *proposal) {
				p.byPolicy("1.2.0")
				p.around.OwnPolicy.OwnerReferences = controlledBy("other", "2")
			},
			action: refuse, reason: v1alpha1.ReasonNameConflict, class: fault.Wait, words: []string{"ImagePolicy app"},
		},
		"a policy of its own that was changed and not evaluated since": {
			change: func(p *proposal) { p.byPolicy("1.2.0"); p.around.OwnPolicy.Generation = 3 },
			action: refuse, reason: v1alpha1.ReasonDependencyNotReady, class: fault.Wait, words: []string{"has not been evaluated since it was changed"},
		},
		"a policy of its own that is judged to be invalid": {
			change: func(p *proposal) {
				p.byPolicy("1.2.0")
				p.around.OwnPolicy.Status.Conditions = []metav1.Condition{
					{Type: meta.ReadyCondition, Status: metav1.ConditionFalse, Message: "invalid policy: improper constraint: 1.x.y.z"},
					{Type: meta.StalledCondition, Status: metav1.ConditionTrue, Message: "invalid policy: improper constraint: 1.x.y.z"},
				}
			},
			action: refuse, reason: v1alpha1.ReasonInvalidSpec, class: fault.Stall, words: []string{"spec.policy", "improper constraint"},
		},
		"a policy of its own that was changed and is judged to be invalid": {
			change: func(p *proposal) {
				p.byPolicy("1.2.0")
				p.around.OwnPolicy.Generation = 3
				p.around.OwnPolicy.Status.Conditions = []metav1.Condition{
					{Type: meta.ReadyCondition, Status: metav1.ConditionFalse, ObservedGeneration: 3, Message: "invalid policy: improper constraint: 1.x.y.z"},
					{Type: meta.StalledCondition, Status: metav1.ConditionTrue, ObservedGeneration: 3, Message: "invalid policy: improper constraint: 1.x.y.z"},
				}
			},
			action: refuse, reason: v1alpha1.ReasonInvalidSpec, class: fault.Stall, words: []string{"spec.policy", "improper constraint"},
		},
		"a policy of its own that was judged to be invalid before it was changed": {
			change: func(p *proposal) {
				p.byPolicy("1.2.0")
				p.around.OwnPolicy.Generation = 3
				p.around.OwnPolicy.Status.Conditions = []metav1.Condition{
					{Type: meta.ReadyCondition, Status: metav1.ConditionFalse, ObservedGeneration: 2, Message: "invalid policy: improper constraint: 1.x.y.z"},
					{Type: meta.StalledCondition, Status: metav1.ConditionTrue, ObservedGeneration: 2, Message: "invalid policy: improper constraint: 1.x.y.z"},
				}
			},
			action: refuse, reason: v1alpha1.ReasonDependencyNotReady, class: fault.Wait, words: []string{"has not been evaluated since it was changed"},
		},
		"a policy of its own that picked from the image before": {
			change: func(p *proposal) {
				p.byPolicy("1.2.0")
				p.spec.Image = "ghcr.io/org/next"
				p.around.OwnRepository.Spec.Image = p.spec.Image
			},
			action: refuse, reason: v1alpha1.ReasonDependencyNotReady, class: fault.Wait, words: []string{"ghcr.io/org/app", "ghcr.io/org/next"},
		},
		"a new image that cannot be scanned": {
			change: func(p *proposal) {
				p.byPolicy("1.2.0")
				p.spec.Image = "ghcr.io/org/next"
				p.around.OwnRepository.Spec.Image = p.spec.Image
				p.around.OwnRepository.Status.Conditions = []metav1.Condition{{Type: meta.ReadyCondition, Status: metav1.ConditionFalse, Message: "scan failed: NAME_UNKNOWN"}}
			},
			action: refuse, reason: v1alpha1.ReasonDependencyNotReady, class: fault.Wait, words: []string{"ImageRepository apps/app is not ready", "NAME_UNKNOWN"},
		},
		"suspend": {change: func(p *proposal) { p.spec.Suspend = true }, action: freeze},
		"suspend of the policy of its own": {
			change: func(p *proposal) { p.byPolicy("1.2.0"); p.around.OwnPolicy.Spec.Suspend = true },
			action: freeze,
		},
	})
}
