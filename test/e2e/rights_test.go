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
	"strings"
	"testing"

	. "github.com/onsi/gomega"
	authorizationv1 "k8s.io/api/authorization/v1"
	"k8s.io/apimachinery/pkg/util/sets"

	sourcev1 "github.com/fluxcd/source-controller/api/v1"

	"github.com/image-source/image-source-controller/api/v1alpha1"
	"github.com/image-source/image-source-controller/test/controlplane"
)

// controllerAccount is who the controller is to the API server.
const controllerAccount = "system:serviceaccount:" + controlplane.FluxNamespace + ":image-source-controller"

// most are the rights that the controller may hold in every namespace, as
// <group>/<resource>: <verbs>. That it has those it needs is what all other
// tests show; this list is what it must not exceed.
const most = `
/namespaces: get list watch
/secrets: get
/serviceaccounts: get
/events: create patch
events.k8s.io/events: create patch
image.toolkit.fluxcd.io/imagerepositories: get list watch create patch delete
image.toolkit.fluxcd.io/imagepolicies: get list watch create patch delete
image.toolkit.fluxcd.io/imagepolicies/finalizers: update
source.contrib.fluxcd.io/artifactrepositories: get list watch create patch delete
source.contrib.fluxcd.io/artifactrepositories/status: patch
source.contrib.fluxcd.io/artifactrepositories/finalizers: update
source.contrib.fluxcd.io/trustpolicies: get list watch
source.contrib.fluxcd.io/trustpolicies/status: patch update
source.contrib.fluxcd.io/externalartifacts: publish
source.toolkit.fluxcd.io/externalartifacts: get list watch create patch delete
source.toolkit.fluxcd.io/externalartifacts/status: patch
`

// mostAtHome are those in its own namespace besides.
const mostAtHome = `
/secrets: list watch
coordination.k8s.io/leases: get list watch create update patch
discovery.k8s.io/endpointslices: get list watch
`

// everybody has these: to ask what one is and may.
const everybody = `
authentication.k8s.io/selfsubjectreviews: create
authorization.k8s.io/selfsubjectaccessreviews: create
authorization.k8s.io/selfsubjectrulesreviews: create
`

// rights reads a list as above into verbs and resources, one right for each.
func rights(lists ...string) sets.Set[string] {
	all := sets.New[string]()
	for _, list := range lists {
		for line := range strings.Lines(list) {
			resource, verbs, _ := strings.Cut(strings.TrimSpace(line), ":")
			for verb := range strings.FieldsSeq(verbs) {
				all.Insert(verb + " " + resource)
			}
		}
	}
	return all
}

// held asks the API server for all rights of somebody in a namespace.
func (n *tenant) held(who person, namespace string) sets.Set[string] {
	n.Helper()
	review := &authorizationv1.SelfSubjectRulesReview{Spec: authorizationv1.SelfSubjectRulesReviewSpec{Namespace: namespace}}
	n.Expect(who.Create(n.Context(), review)).To(Succeed())
	n.Expect(review.Status.Incomplete).To(BeFalse(), review.Status.EvaluationError)
	all := sets.New[string]()
	for _, rule := range review.Status.ResourceRules {
		for _, group := range rule.APIGroups {
			for _, resource := range rule.Resources {
				for _, verb := range rule.Verbs {
					all.Insert(verb + " " + group + "/" + resource)
				}
			}
		}
	}
	return all
}

func TestTheControllerHoldsNoRightsBeyondItsNeed(t *testing.T) {
	t.Parallel()
	n := newTenant(t, v1alpha1.UseAsSourceEnabled)
	controller := n.account(controllerAccount)
	elsewhere := n.held(controller, n.namespace)
	n.Expect(elsewhere.Has("get /secrets")).To(BeTrue(), "the review says nothing: %v", elsewhere)
	n.Expect(sets.List(elsewhere.Difference(rights(most, everybody)))).To(BeEmpty())
	atHome := n.held(controller, controlplane.FluxNamespace)
	n.Expect(sets.List(atHome.Difference(rights(most, mostAtHome, everybody)))).To(BeEmpty())

	for name, what := range map[string]authorizationv1.ResourceAttributes{
		"list the Secrets of the cluster":            {Verb: "list", Resource: "secrets"},
		"watch the Secrets of a tenant":              {Verb: "watch", Resource: "secrets", Namespace: n.namespace},
		"make tokens of others, without a component": {Verb: "create", Resource: "serviceaccounts", Subresource: "token", Namespace: n.namespace},
		"label namespaces":                           {Verb: "patch", Resource: "namespaces", Name: n.namespace},
		"say what an ImagePolicy picked":             {Verb: "patch", Group: "image.toolkit.fluxcd.io", Resource: "imagepolicies", Subresource: "status", Namespace: n.namespace},
		"act as others":                              {Verb: "impersonate", Resource: "users"},
		"write TrustPolicies":                        {Verb: "update", Group: v1alpha1.Group, Resource: "trustpolicies"},
	} {
		n.Expect(n.may(n, controllerAccount, what)).To(BeFalse(), "the controller may %s", name)
	}
	n.Expect(n.may(n, controllerAccount, authorizationv1.ResourceAttributes{
		Verb: "publish", Group: v1alpha1.Group, Resource: "externalartifacts", Namespace: n.namespace,
	})).To(BeTrue())
}

// The roles that Kubernetes has for tenants, with what Flux and we add to them.
func TestWhatTheRolesOfTenantsHold(t *testing.T) {
	t.Parallel()
	n := newTenant(t, v1alpha1.UseAsSourceEnabled)
	n.apply(fluxRoles)
	const read, write = "get list watch", "create update patch delete deletecollection"
	for role, verbs := range map[string]string{
		"view":  read,
		"edit":  read + " " + write,
		"admin": read + " " + write,
	} {
		who := n.user(role)
		n.bind(who, role)
		n.eventually(func(g Gomega) {
			held := sets.New[string]()
			for right := range n.held(who, n.namespace) {
				if strings.Contains(right, " "+v1alpha1.Group+"/") {
					held.Insert(right)
				}
			}
			want := rights(v1alpha1.Group + "/artifactrepositories: " + verbs + "\n" + v1alpha1.Group + "/trustpolicies: " + read)
			g.Expect(sets.List(held)).To(Equal(sets.List(want)), role)
		})
		// Neither by a wildcard: not the record, not what the policies ask for.
		for _, what := range []authorizationv1.ResourceAttributes{
			{Verb: "update", Resource: "artifactrepositories", Subresource: "status"},
			{Verb: "patch", Resource: "artifactrepositories", Subresource: "status"},
			{Verb: "publish", Resource: "externalartifacts"},
			{Verb: "update", Resource: "trustpolicies"},
			{Verb: "create", Resource: "trustpolicies"},
		} {
			what.Group, what.Namespace = v1alpha1.Group, n.namespace
			n.Expect(n.may(n, who.name, what)).To(BeFalse(), "%s: %v", role, what)
		}
	}
	// What Flux gives them is why there are policies.
	n.eventually(func(g Gomega) {
		g.Expect(n.may(g, n.user("edit").name, authorizationv1.ResourceAttributes{
			Verb: "update", Group: sourcev1.GroupVersion.Group, Resource: "externalartifacts", Subresource: "status", Namespace: n.namespace,
		})).To(BeTrue())
	})
}
