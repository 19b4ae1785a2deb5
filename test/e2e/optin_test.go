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
	"testing"
	"time"

	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"

	imagev1 "github.com/fluxcd/image-reflector-controller/api/v1"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"

	"github.com/image-source/image-source-controller/api/v1alpha1"
)

// mark sets useAsSource on an image object, and removes it if the value is empty.
func mark(obj client.Object, value string) {
	delete(obj.GetAnnotations(), v1alpha1.UseAsSource)
	if value != "" {
		obj.SetAnnotations(map[string]string{v1alpha1.UseAsSource: value})
	}
}

// marked is a change of n.scan: the annotations of both objects.
func marked(onRepository, onPolicy string) func(*imagev1.ImageRepository, *imagev1.ImagePolicy) {
	return func(repository *imagev1.ImageRepository, policy *imagev1.ImagePolicy) {
		mark(repository, onRepository)
		mark(policy, onPolicy)
	}
}

// absent fails if anything of a source exists.
func (n *tenant) absent(name string) {
	n.Helper()
	for _, obj := range []client.Object{&v1alpha1.ArtifactRepository{}, &sourcev1.ExternalArtifact{}} {
		err := env.Client.Get(n.Context(), n.key(name), obj)
		n.Expect(apierrors.IsNotFound(err)).To(BeTrue(), "%T %s must not exist: %v", obj, name, err)
	}
	n.Expect(n.stored(name)).To(BeEmpty())
}

// warnings waits until there is a Warning event about an object of a kind with
// a reason, and returns all of them. Those that are equal are one event with a count.
func (n *tenant) warnings(kind, name, reason string) (found []corev1.Event) {
	n.Helper()
	n.eventually(func(g Gomega) {
		var list corev1.EventList
		g.Expect(env.Client.List(n.Context(), &list, client.InNamespace(n.namespace))).To(Succeed())
		found = nil
		for _, event := range list.Items {
			if about := event.InvolvedObject; about.Kind == kind && about.Name == name && event.Reason == reason && event.Type == corev1.EventTypeWarning {
				found = append(found, event)
			}
		}
		g.Expect(found).NotTo(BeEmpty(), "no Warning %s about %s %s", reason, kind, name)
	})
	return found
}

func TestOptingIn(t *testing.T) {
	t.Parallel()
	type marks struct{ repository, policy string }
	for name, test := range map[string]struct {
		label         string
		sources, none map[string]marks
	}{
		"in a namespace that is enabled, annotations decide": {
			label: v1alpha1.UseAsSourceEnabled,
			sources: map[string]marks{
				"policy":                  {policy: "true"},
				"repository":              {repository: "true"},
				"policy-over-repository":  {repository: "false", policy: "true"},
				"a-source-with-a-typo":    {repository: "ture", policy: "true"},
				"policy-with.dots-in.it":  {policy: "true"},
				"policy-and-repository-1": {repository: "true", policy: "true"},
			},
			none: map[string]marks{
				"nothing":       {},
				"policy-false":  {repository: "true", policy: "false"},
				"typo":          {policy: "True"},
				"only-a-falsum": {repository: "false"},
			},
		},
		"in a namespace of sources, annotations take out": {
			label: v1alpha1.UseAsSourceAll,
			sources: map[string]marks{
				"nothing":                {},
				"policy-over-repository": {repository: "false", policy: "true"},
			},
			none: map[string]marks{
				"policy-false":     {policy: "false"},
				"repository-false": {repository: "false"},
			},
		},
		"in a namespace without the label, nothing counts": {
			none: map[string]marks{"policy": {policy: "true"}, "repository": {repository: "true"}},
		},
		"in a namespace with another label value, nothing starts": {
			label: "disabled",
			none:  map[string]marks{"policy": {policy: "true"}, "repository": {repository: "true"}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := newTenant(t, test.label)
			for name, marks := range test.none {
				n.push(name, "1.0.0", configMap("app", "1.0.0"))
				n.scan(name, marked(marks.repository, marks.policy))
			}
			for name, marks := range test.sources {
				n.push(name, "1.0.0", configMap("app", "1.0.0"))
				n.scan(name, marked(marks.repository, marks.policy))
			}
			for name := range test.sources {
				n.published(name, "1.0.0")
			}
			// By now the others had their turn: they came first.
			for name := range test.none {
				n.eventually(func(g Gomega) {
					policy := &imagev1.ImagePolicy{}
					g.Expect(env.Client.Get(n.Context(), n.key(name), policy)).To(Succeed())
					g.Expect(policy.Status.LatestRef).NotTo(BeNil())
				})
				n.absent(name)
			}
		})
	}
}

func TestAnAnnotationWithoutALabelIsExplainedOnce(t *testing.T) {
	t.Parallel()
	n := newTenant(t, "")
	n.push("app", "1.0.0", configMap("app", "1.0.0"))
	n.scan("app")
	n.warnings("ImagePolicy", "app", v1alpha1.ReasonAccessDenied)
	n.push("app", "1.1.0", configMap("app", "1.1.0"))
	n.label(v1alpha1.UseAsSourceEnabled)
	n.published("app", "1.1.0")
	n.label("")
	n.removed("app")
	warnings := n.warnings("ImagePolicy", "app", v1alpha1.ReasonAccessDenied)
	n.Expect(warnings).To(HaveLen(1))
	n.Expect(warnings[0].Count).To(BeNumerically("==", 1))
	n.Expect(warnings[0].Message).To(ContainSubstring(v1alpha1.UseAsSource + "=" + v1alpha1.UseAsSourceEnabled))
}

func TestOptingOutRemovesTheSource(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		label string
		marks func(*imagev1.ImageRepository, *imagev1.ImagePolicy)
		out   func(n *tenant)
	}{
		"the annotation of the policy is removed": {
			out: func(n *tenant) { n.annotate(named(n, "app", &imagev1.ImagePolicy{}), v1alpha1.UseAsSource, "") },
		},
		"the annotation of the policy is false": {
			out: func(n *tenant) { n.annotate(named(n, "app", &imagev1.ImagePolicy{}), v1alpha1.UseAsSource, "false") },
		},
		"the annotation of the repository is removed": {
			marks: marked("true", ""),
			out:   func(n *tenant) { n.annotate(named(n, "app", &imagev1.ImageRepository{}), v1alpha1.UseAsSource, "") },
		},
		"the label of the namespace is removed": {
			out: func(n *tenant) { n.label("") },
		},
		"the label of the namespace no longer says all": {
			label: v1alpha1.UseAsSourceAll, marks: marked("", ""),
			out: func(n *tenant) { n.label(v1alpha1.UseAsSourceEnabled) },
		},
		"the policy is deleted": {
			out: func(n *tenant) {
				n.Expect(env.Client.Delete(n.Context(), named(n, "app", &imagev1.ImagePolicy{}))).To(Succeed())
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if test.label == "" {
				test.label = v1alpha1.UseAsSourceEnabled
			}
			if test.marks == nil {
				test.marks = marked("", "true")
			}
			n := newTenant(t, test.label)
			n.push("app", "1.0.0", configMap("app", "1.0.0"))
			n.scan("app", test.marks)
			n.published("app", "1.0.0")
			n.Expect(n.stored("app")).To(HaveLen(1))
			test.out(n)
			n.removed("app")
		})
	}
}

// A typo must not delete what runs in production.
func TestTyposRemoveNothing(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		marks        func(*imagev1.ImageRepository, *imagev1.ImagePolicy)
		typo, repair func(n *tenant)
		kind         string
		accepted     []string
	}{
		"in the annotation of a policy": {
			marks:    marked("", "true"),
			typo:     func(n *tenant) { n.annotate(named(n, "app", &imagev1.ImagePolicy{}), v1alpha1.UseAsSource, "ture") },
			repair:   func(n *tenant) { n.annotate(named(n, "app", &imagev1.ImagePolicy{}), v1alpha1.UseAsSource, "true") },
			kind:     "ImagePolicy",
			accepted: []string{`"ture"`, `"true"`, `"false"`},
		},
		"in the annotation of a repository": {
			marks:    marked("true", ""),
			typo:     func(n *tenant) { n.annotate(named(n, "app", &imagev1.ImageRepository{}), v1alpha1.UseAsSource, "yes") },
			repair:   func(n *tenant) { n.annotate(named(n, "app", &imagev1.ImageRepository{}), v1alpha1.UseAsSource, "true") },
			kind:     "ImageRepository",
			accepted: []string{`"yes"`, `"true"`, `"false"`},
		},
		"in the label of the namespace": {
			marks:    marked("", "true"),
			typo:     func(n *tenant) { n.label("enable") },
			repair:   func(n *tenant) { n.label("enabled") },
			kind:     "ImagePolicy",
			accepted: []string{`"enable"`, `"enabled"`, `"all"`},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := newTenant(t, v1alpha1.UseAsSourceEnabled)
			n.push("app", "1.0.0", configMap("app", "1.0.0"))
			n.scan("app", test.marks)
			artifact := n.published("app", "1.0.0")
			for range 2 {
				test.typo(n)
				n.warnings(test.kind, "app", v1alpha1.ReasonInvalidSpec)
				n.Expect(n.reconciled("app").Status.Artifact).To(Equal(artifact))
				n.Expect(get(n, "app", &sourcev1.ExternalArtifact{}).Status.Artifact).To(Equal(artifact))
				n.fetch(artifact)
				test.repair(n)
				n.published("app", "1.0.0")
			}
			n.push("app", "1.1.0", configMap("app", "1.1.0"))
			n.published("app", "1.1.0")
			warnings := n.warnings(test.kind, "app", v1alpha1.ReasonInvalidSpec)
			n.Expect(warnings).To(HaveLen(1))
			n.Expect(warnings[0].Count).To(BeNumerically("==", 1), "once per value and process")
			for _, word := range test.accepted {
				n.Expect(warnings[0].Message).To(ContainSubstring(word))
			}
		})
	}
}

// The label belongs to the platform: what a tenant writes by hand needs it too.
func TestTheLabelHoldsHandWrittenObjects(t *testing.T) {
	t.Parallel()
	n := newTenant(t, "")
	revision := n.push("app", "1.0.0", configMap("app", "1.0.0"))
	n.scan("app", marked("", ""))
	n.apply(`apiVersion: source.contrib.fluxcd.io/v1alpha1
kind: ArtifactRepository
metadata:
  name: by-hand
spec:
  imagePolicyRef:
    name: app
`)
	_, ready := n.notReady("by-hand", v1alpha1.ReasonAccessDenied)
	n.Expect(ready.Message).To(ContainSubstring(v1alpha1.UseAsSource + "=" + v1alpha1.UseAsSourceEnabled))
	n.gone("by-hand", &sourcev1.ExternalArtifact{})

	n.label(v1alpha1.UseAsSourceEnabled)
	n.published("by-hand", revision)

	n.label("")
	n.notReady("by-hand", v1alpha1.ReasonAccessDenied)
	n.gone("by-hand", &sourcev1.ExternalArtifact{})
	n.eventually(func(g Gomega) { g.Expect(n.stored("by-hand")).To(BeEmpty()) })
	n.Expect(get(n, "by-hand", &v1alpha1.ArtifactRepository{}).Status.Artifact).To(BeNil())
}

// Where somebody wrote the whole object, the annotation is satisfied and opting
// out of it deletes nothing.
func TestAHandWrittenObjectOfThePolicysName(t *testing.T) {
	t.Parallel()
	n := newTenant(t, v1alpha1.UseAsSourceEnabled)
	revision := n.push("app", "1.0.0", configMap("app", "1.0.0"))
	n.apply(`apiVersion: source.contrib.fluxcd.io/v1alpha1
kind: ArtifactRepository
metadata:
  name: app
spec:
  interval: 30m
  imagePolicyRef:
    name: app
`)
	n.scan("app")
	n.published("app", revision)
	obj := get(n, "app", &v1alpha1.ArtifactRepository{})
	n.Expect(obj.OwnerReferences).To(BeEmpty())
	n.Expect(obj.Spec.Interval.Duration).To(Equal(30 * time.Minute))

	n.annotate(named(n, "app", &imagev1.ImagePolicy{}), v1alpha1.UseAsSource, "")
	n.Expect(n.reconciled("app").Status.Artifact.Revision).To(Equal(revision))
	n.published("app", revision)
}

// An ArtifactRepository of the policy's name that follows another policy is in
// the way, and is left alone.
func TestAnObjectInTheWayOfAPolicy(t *testing.T) {
	t.Parallel()
	n := newTenant(t, v1alpha1.UseAsSourceEnabled)
	n.push("app", "1.0.0", configMap("app", "1.0.0"))
	n.push("other", "7.0.0", configMap("app", "7.0.0"))
	n.scan("other", marked("", ""))
	n.apply(`apiVersion: source.contrib.fluxcd.io/v1alpha1
kind: ArtifactRepository
metadata:
  name: app
spec:
  imagePolicyRef:
    name: other
`)
	n.published("app", "7.0.0")
	n.scan("app")
	n.Expect(n.warnings("ImagePolicy", "app", v1alpha1.ReasonNameConflict)).To(HaveLen(1))
	n.Expect(get(n, "app", &v1alpha1.ArtifactRepository{}).Spec.ImagePolicyRef.Name).To(Equal("other"))

	n.Expect(env.Client.Delete(n.Context(), named(n, "app", &v1alpha1.ArtifactRepository{}))).To(Succeed())
	n.published("app", "1.0.0")
}

// A policy that was deleted and made again is another object: what the first
// one left must not stay without an owner.
func TestAPolicyThatIsMadeAgain(t *testing.T) {
	t.Parallel()
	n := newTenant(t, v1alpha1.UseAsSourceEnabled)
	n.push("app", "1.0.0", configMap("app", "1.0.0"))
	n.scan("app")
	n.published("app", "1.0.0")
	policy := get(n, "app", &imagev1.ImagePolicy{})
	n.Expect(env.Client.Delete(n.Context(), policy)).To(Succeed())
	again := named(n, "app", &imagev1.ImagePolicy{})
	again.Annotations, again.Spec = policy.Annotations, policy.Spec
	n.eventually(func(g Gomega) { g.Expect(env.Client.Create(n.Context(), again)).To(Succeed()) })
	n.eventually(func(g Gomega) {
		obj := &v1alpha1.ArtifactRepository{}
		g.Expect(env.Client.Get(n.Context(), n.key("app"), obj)).To(Succeed())
		g.Expect(obj.OwnerReferences).To(HaveLen(1))
		g.Expect(obj.OwnerReferences[0].UID).To(Equal(again.UID))
	})
	n.fetch(n.published("app", "1.0.0"))
}

func TestANamespaceGoesWithoutATrace(t *testing.T) {
	t.Parallel()
	n := newTenant(t, v1alpha1.UseAsSourceEnabled)
	n.push("app", "1.0.0", configMap("app", "1.0.0"))
	n.scan("app")
	n.published("app", "1.0.0")
	namespace := &corev1.Namespace{}
	namespace.Name = n.namespace
	n.Expect(env.Client.Delete(n.Context(), namespace)).To(Succeed())
	n.eventually(func(g Gomega) {
		err := env.Client.Get(n.Context(), client.ObjectKeyFromObject(namespace), namespace)
		g.Expect(apierrors.IsNotFound(err)).To(BeTrue(), "%v: %v", err, namespace.Status.Conditions)
		g.Expect(n.stored("app")).To(BeEmpty())
	})
}

// A cluster of one tenant needs no label, and a shard reaches everything that
// carries its own.
func TestWithoutNamespaceOptIn(t *testing.T) {
	t.Parallel()
	n := newTenant(t, "")
	shard := startShard(t, n.namespace, "--namespace-opt-in=none")
	revision := n.pushAndScan("podinfo", "1.0.0", func(_ *imagev1.ImageRepository, policy *imagev1.ImagePolicy) {
		policy.Labels = map[string]string{shardLabel: n.namespace}
	})
	artifact := n.published("podinfo", revision)
	n.Expect(artifact.URL).To(HavePrefix("http://" + shard.Address + "/"))
	for _, obj := range []client.Object{&v1alpha1.ArtifactRepository{}, &sourcev1.ExternalArtifact{}} {
		n.Expect(get(n, "podinfo", obj).GetLabels()).To(HaveKeyWithValue(shardLabel, n.namespace))
	}
	change(n, named(n, "podinfo", &sourcev1.ExternalArtifact{}), func(obj *sourcev1.ExternalArtifact) { obj.Labels = nil })
	n.eventually(func(g Gomega) {
		g.Expect(get(n, "podinfo", &sourcev1.ExternalArtifact{}).Labels).To(HaveKeyWithValue(shardLabel, n.namespace), "consumers in the shard lose it")
	})
	n.annotate(named(n, "podinfo", &imagev1.ImagePolicy{}), v1alpha1.UseAsSource, "")
	n.removed("podinfo")
}
