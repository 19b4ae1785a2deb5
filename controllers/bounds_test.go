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

package controllers

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"testing"

	. "github.com/onsi/gomega"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	imagev1 "github.com/fluxcd/image-reflector-controller/api/v1"
	"github.com/fluxcd/pkg/apis/acl"
	"github.com/fluxcd/pkg/apis/meta"

	"github.com/image-source/image-source-controller/api/v1alpha1"
	"github.com/image-source/image-source-controller/pkg/source"
)

func TestHostsThatTenantsNameAreNotCountedOneByOneForever(t *testing.T) {
	var h hosts
	for i := range maxHosts {
		h.label(fmt.Sprintf("host-%d.example", i))
	}
	if got := h.label("host-0.example"); got != "host-0.example" {
		t.Errorf("a host that is known is counted as %q", got)
	}
	if got := h.label("one-more.example"); got != "other" {
		t.Errorf("a host over the bound is counted as %q", got)
	}
}

// heap returns how many bytes the program keeps.
func heap() int64 {
	var stats runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&stats)
	return int64(stats.HeapAlloc)
}

func TestWarningsKeepNoTextOfTenants(t *testing.T) {
	const values, size = 200, 200_000
	var told said
	before := heap()
	for i := range values {
		if !told.first("uid", source.Warning{Value: strings.Repeat("v", size) + fmt.Sprint(i)}) {
			t.Fatalf("the warning about value %d was not given", i)
		}
	}
	if told.first("uid", source.Warning{Value: strings.Repeat("v", size) + "0"}) {
		t.Error("a warning is given twice")
	}
	if grown := heap() - before; grown > values*size/4 {
		t.Errorf("the warnings about %d values of %d bytes keep %d bytes", values, size, grown)
	}
	runtime.KeepAlive(&told)
}

// followed is a client with one source, which follows every policy.
type followed struct {
	client.Client
	source v1alpha1.ArtifactRepository
}

// List implements client.Reader.
func (f followed) List(_ context.Context, list client.ObjectList, _ ...client.ListOption) error {
	list.(*v1alpha1.ArtifactRepositoryList).Items = []v1alpha1.ArtifactRepository{f.source}
	return nil
}

// Get implements client.Reader.
func (followed) Get(context.Context, client.ObjectKey, client.Object, ...client.GetOption) error {
	return errors.ErrUnsupported
}

// A policy may pick a megabyte: the schema of its status has no limits. Each source could
// be made to follow it once, and another policy then.
func TestArrivalsKeepNoPick(t *testing.T) {
	const sources, size = 200, 200_000
	policy := &imagev1.ImagePolicy{ObjectMeta: metav1.ObjectMeta{Namespace: "apps", Name: "app"}}
	before, r := heap(), &ArtifactRepositoryReconciler{Report: &Report{}}
	for i := range sources {
		name := fmt.Sprint(i)
		r.Snapshots.Client = followed{source: v1alpha1.ArtifactRepository{ObjectMeta: metav1.ObjectMeta{Namespace: policy.Namespace, Name: name}}}
		policy.Status.LatestRef = &imagev1.ImageRef{Tag: strings.Repeat("t", size) + name}
		if got := len(r.ofPolicy(t.Context(), policy)); got != 1 {
			t.Fatalf("%d sources follow the policy", got)
		}
	}
	r.Snapshots.Client, policy.Status.LatestRef = nil, nil
	if grown := heap() - before; grown > sources*size/4 {
		t.Errorf("the picks of %d sources of %d bytes keep %d bytes", sources, size, grown)
	}
	runtime.KeepAlive(r)
}

// around is a client with a namespace and an ImageRepository of another one.
type around struct {
	client.Client
	repository imagev1.ImageRepository
}

// Get implements client.Reader.
func (a around) Get(_ context.Context, key client.ObjectKey, obj client.Object, _ ...client.GetOption) error {
	obj.SetName(key.Name)
	if repository, ok := obj.(*imagev1.ImageRepository); ok {
		*repository = a.repository
	}
	return nil
}

// The schema of an ImageRepository does not limit accessFrom either, and each reconcile of a
// source of another namespace reads it.
func TestAccessListsOfAnySizeCostLittle(t *testing.T) {
	labels := map[string]string{}
	for i := range 100_000 {
		labels[fmt.Sprint(i)] = ""
	}
	for sentence, c := range map[string]struct {
		selectors []acl.NamespaceSelector
		admits    bool
	}{
		"all":            {[]acl.NamespaceSelector{{}}, true},
		"many selectors": {append(slices.Repeat([]acl.NamespaceSelector{{MatchLabels: map[string]string{"a": "b"}}}, 60_000), acl.NamespaceSelector{}), false},
		"many labels":    {[]acl.NamespaceSelector{{MatchLabels: labels}, {}}, false},
	} {
		t.Run(sentence, func(t *testing.T) {
			g := NewWithT(t)
			policy := &imagev1.ImagePolicy{ObjectMeta: metav1.ObjectMeta{Namespace: "apps", Name: "app"}}
			policy.Spec.ImageRepositoryRef = meta.NamespacedObjectReference{Namespace: "images", Name: "app"}
			repository := imagev1.ImageRepository{ObjectMeta: metav1.ObjectMeta{Namespace: "images", Name: "app"}}
			repository.Spec.AccessFrom = &acl.AccessFrom{NamespaceSelectors: c.selectors}
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			s, err := Snapshots{Client: around{repository: repository}}.AroundPolicy(t.Context(), policy)
			runtime.ReadMemStats(&after)
			g.Expect(err).NotTo(HaveOccurred())
			g.Expect(s.Admitted).To(Equal(c.admits))
			g.Expect(after.TotalAlloc-before.TotalAlloc).To(BeNumerically("<", 1<<20), "bytes")
		})
	}
}
