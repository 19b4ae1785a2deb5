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
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	imagev1 "github.com/fluxcd/image-reflector-controller/api/v1"
	"github.com/fluxcd/pkg/apis/meta"

	"github.com/image-source/image-source-controller/api/v1alpha1"
	"github.com/image-source/image-source-controller/pkg/source"
)

// The used fields of each kind. A field includes all below it. No other field is cached or
// leads to a reconcile.
const (
	namespaceFields = `
metadata.name metadata.namespace metadata.uid
metadata.labels
metadata.deletionTimestamp
`
	imagePolicyFields = ownedFields + `
spec.imageRepositoryRef
spec.policy
spec.filterTags
spec.digestReflectionPolicy
spec.interval
spec.suspend
status.observedGeneration
status.lastHandledReconcileAt
status.latestRef
status.conditions[Ready].type status.conditions[Ready].status status.conditions[Ready].message status.conditions[Ready].observedGeneration
status.conditions[Stalled].type status.conditions[Stalled].status status.conditions[Stalled].message status.conditions[Stalled].observedGeneration
`
	imageRepositoryFields = ownedFields + `
spec.image
spec.insecure
spec.provider
spec.secretRef
spec.serviceAccountName
spec.certSecretRef
spec.proxySecretRef
spec.accessFrom
spec.interval
spec.timeout
spec.exclusionList
spec.suspend
status.observedGeneration
status.canonicalImageName
status.lastScanResult.latestTags
status.conditions[Ready].type status.conditions[Ready].status status.conditions[Ready].message
`
	externalArtifactFields = ownedFields + `
spec.sourceRef
status.artifact
status.conditions
`
	artifactRepositoryFields = ownedFields + `
metadata.creationTimestamp
metadata.finalizers
spec
status
`
	ownedFields = `
metadata.name metadata.namespace metadata.uid
metadata.generation
metadata.deletionTimestamp
metadata.labels
metadata.ownerReferences
metadata.annotations[source.contrib.fluxcd.io/useAsSource]
metadata.annotations[reconcile.fluxcd.io/requestedAt]
metadata.annotations[event.toolkit.fluxcd.io/change]
`
)

func TestOnlyFieldsThatAreReadAreNews(t *testing.T) {
	t.Run("Namespace", func(t *testing.T) { expectNews(t, source.KeepNamespace, namespaceFields) })
	t.Run("ImagePolicy", func(t *testing.T) { expectNews(t, source.KeepPolicy, imagePolicyFields) })
	t.Run("ImageRepository", func(t *testing.T) { expectNews(t, source.KeepRepository, imageRepositoryFields) })
	t.Run("ExternalArtifact", func(t *testing.T) { expectNews(t, source.KeepExternal, externalArtifactFields) })
	t.Run("ArtifactRepository", func(t *testing.T) { expectNews(t, source.KeepArtifactRepository, artifactRepositoryFields) })
	t.Run("ImagePolicy, for its opt-in", func(t *testing.T) {
		expectNews(t, source.PolicyWithoutStatus, withoutStatus(imagePolicyFields))
	})
	t.Run("ImageRepository, for its opt-in", func(t *testing.T) {
		expectNews(t, source.RepositoryWithoutStatus, withoutStatus(imageRepositoryFields))
	})
	t.Run("ArtifactRepository, with our status", func(t *testing.T) {
		expectNews(t, source.ArtifactRepositoryWithoutStatus, withoutStatus(artifactRepositoryFields))
	})
}

func withoutStatus(fields string) string {
	return strings.Join(slices.DeleteFunc(strings.Fields(fields), func(field string) bool { return strings.HasPrefix(field, "status") }), " ")
}

// expectNews changes every field of a kind, one at a time.
func expectNews[T metav1.Object](t *testing.T, keep func(T) T, fields string) {
	t.Helper()
	listed := map[string]bool{}
	for field := range strings.FieldsSeq(fields) {
		listed[field] = false
	}
	for i, path := range leaves(filled[T]()) {
		before, now := filled[T](), filled[T]()
		change(now, i)
		want := false
		for field := range listed {
			if rest, below := strings.CutPrefix(path, field); below && (rest == "" || rest[0] == '.' || rest[0] == '[') {
				want, listed[field] = true, true
			}
		}
		if got := source.IsNews(before, now, keep); got != want {
			t.Errorf("%s: is news: %t, want %t", path, got, want)
		}
	}
	for field, exists := range listed {
		if !exists {
			t.Errorf("there is no field %s", field)
		}
	}
}

// The objects of an event are those of a cache.
func TestAComparisonChangesNoObject(t *testing.T) {
	expectUnchanged(t, source.KeepNamespace)
	expectUnchanged(t, source.KeepPolicy)
	expectUnchanged(t, source.PolicyWithoutStatus)
	expectUnchanged(t, source.KeepRepository)
	expectUnchanged(t, source.RepositoryWithoutStatus)
	expectUnchanged(t, source.KeepExternal)
	expectUnchanged(t, source.KeepArtifactRepository)
	expectUnchanged(t, source.ArtifactRepositoryWithoutStatus)
}

func expectUnchanged[T metav1.Object](t *testing.T, keep func(T) T) {
	t.Helper()
	before, now, want := filled[T](), filled[T](), filled[T]()
	source.IsNews(before, now, keep)
	if !equality.Semantic.DeepEqual(before, want) || !equality.Semantic.DeepEqual(now, want) {
		t.Errorf("%T: a comparison changed it", want)
	}
	kept := keep(want)
	if kept.GetResourceVersion() != want.GetResourceVersion() {
		t.Errorf("%T: a patch of it would not be guarded", want)
	}
	if !equality.Semantic.DeepEqual(keep(kept), kept) {
		t.Errorf("%T: a kept field is incomplete", want)
	}
}

// A scan rewrites the status of an ImageRepository, even without a new tag.
func TestAScanIsNoNews(t *testing.T) {
	scanned := func(tags ...string) *imagev1.ImageRepository {
		return &imagev1.ImageRepository{Status: imagev1.ImageRepositoryStatus{
			Conditions:     []metav1.Condition{{Type: meta.ReadyCondition, Status: metav1.ConditionTrue, Message: fmt.Sprintf("found %d tags", len(tags))}},
			LastScanResult: &imagev1.ScanResult{TagCount: len(tags), LatestTags: tags},
		}}
	}
	many := slices.Repeat([]string{"1.0.0"}, 10)
	for sentence, c := range map[string]struct {
		before, now *imagev1.ImageRepository
		news        bool
	}{
		"another tag":                       {scanned("1.0.0"), scanned("1.0.1", "1.0.0"), false},
		"the first scan":                    {&imagev1.ImageRepository{}, scanned("1.0.0"), false},
		"a tag that Helm wrote for a build": {scanned("1.0.0"), scanned("1.0.0_1", "1.0.0"), true},
		"a tag of a build beyond the bound": {scanned(many...), scanned(append(many, "1.0.0_1")...), false},
		"a tag that no registry can have":   {scanned("1.0.0"), scanned("1.0.0_/", "1.0.0"), false},
	} {
		if got := source.IsNews(c.before, c.now, source.KeepRepository); got != c.news {
			t.Errorf("%s: is news: %t", sentence, got)
		}
	}
}

// filled returns an object without an empty field. The texts could be a tag.
func filled[T any]() T {
	obj := reflect.New(reflect.TypeFor[T]().Elem())
	fill(obj.Elem())
	return obj.Interface().(T)
}

func fill(v reflect.Value) {
	switch at := v.Addr().Interface().(type) {
	case *time.Time:
		*at = time.Unix(1, 0)
		return
	case *[]metav1.Condition:
		for _, kind := range []string{meta.ReadyCondition, meta.StalledCondition, v1alpha1.SourceVerifiedCondition} {
			var condition metav1.Condition
			fill(reflect.ValueOf(&condition).Elem())
			condition.Type, condition.Status = kind, metav1.ConditionFalse
			*at = append(*at, condition)
		}
		return
	case *metav1.ObjectMeta:
		for _, field := range v.Fields() {
			fill(field)
		}
		at.Annotations = map[string]string{}
		for _, key := range []string{v1alpha1.UseAsSource, meta.ReconcileRequestAnnotation, "event.toolkit.fluxcd.io/change", "example.com/other"} {
			at.Annotations[key] = "a_b"
		}
		return
	}
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			if v.Type().Field(i).IsExported() {
				fill(v.Field(i))
			}
		}
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(v.Elem())
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
		fill(v.Index(0))
	case reflect.Map:
		v.Set(reflect.MakeMap(v.Type()))
		value := reflect.New(v.Type().Elem()).Elem()
		fill(value)
		v.SetMapIndex(reflect.ValueOf("key").Convert(v.Type().Key()), value)
	default:
		set(v, 1)
	}
}

// set gives a field the first or the second of two values.
func set(v reflect.Value, n int) {
	switch {
	case v.Kind() == reflect.String:
		v.SetString([]string{"a_b", "c_d"}[n-1])
	case v.Kind() == reflect.Bool:
		v.SetBool(n == 1)
	case v.CanInt():
		v.SetInt(int64(n))
	case v.CanUint():
		v.SetUint(uint64(n))
	default:
		panic(fmt.Sprintf("no value for a %s", v.Type()))
	}
}

// leaves returns the paths of all fields of an object without subfields.
func leaves(obj any) (paths []string) {
	walk(reflect.ValueOf(obj).Elem(), "", func(path string, _ func()) { paths = append(paths, path) })
	return paths
}

// change changes one of the leaves.
func change(obj any, leaf int) {
	i := 0
	walk(reflect.ValueOf(obj).Elem(), "", func(_ string, change func()) {
		if i == leaf {
			change()
		}
		i++
	})
}

func walk(v reflect.Value, path string, visit func(path string, change func())) {
	if at, ok := reflect.TypeAssert[*time.Time](v.Addr()); ok {
		visit(path, func() { *at = at.Add(time.Hour) })
		return
	}
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			if field := v.Type().Field(i); field.IsExported() {
				walk(v.Field(i), join(path, field), visit)
			}
		}
	case reflect.Pointer:
		if !v.IsNil() {
			walk(v.Elem(), path, visit)
		}
	case reflect.Slice:
		for i := range v.Len() {
			name := fmt.Sprint(i)
			if condition, ok := reflect.TypeAssert[metav1.Condition](v.Index(i)); ok {
				name = condition.Type
			}
			walk(v.Index(i), path+"["+name+"]", visit)
		}
	case reflect.Map:
		for _, key := range slices.SortedFunc(slices.Values(v.MapKeys()), func(a, b reflect.Value) int { return strings.Compare(a.String(), b.String()) }) {
			visit(path+"["+key.String()+"]", func() { v.SetMapIndex(key, reflect.Zero(v.Type().Elem())) })
		}
	default:
		visit(path, func() { set(v, 2) })
	}
}

// join returns the path of a field, by its name in YAML.
func join(path string, field reflect.StructField) string {
	tag, _, _ := strings.Cut(field.Tag.Get("json"), ",")
	switch {
	case tag == "" && field.Anonymous:
		return path
	case tag == "":
		tag = field.Name
	}
	return strings.TrimPrefix(path+"."+tag, ".")
}
