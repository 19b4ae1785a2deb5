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

package controllers_test

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"

	. "github.com/onsi/gomega"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/controller-runtime/pkg/client"

	imagev1 "github.com/fluxcd/image-reflector-controller/api/v1"

	"github.com/image-source/image-source-controller/api/v1alpha1"
)

const readablePolicy = "readable." + v1alpha1.Group

// object reads an object of the scene's namespace.
func (s *scene) object(text string) *unstructured.Unstructured {
	s.Helper()
	obj := &unstructured.Unstructured{}
	NewWithT(s).Expect(yaml.Unmarshal([]byte(text), &obj.Object)).To(Succeed())
	obj.SetNamespace(s.namespace)
	return obj
}

// install applies a file of config/admission; every test on this API server is
// under it from then on, as it would be in a cluster.
func install(ctx context.Context, c client.Client, name string) error {
	file, err := os.Open(filepath.Join("..", "config", "admission", name))
	if err != nil {
		return err
	}
	for documents := yaml.NewYAMLOrJSONDecoder(file, 4096); ; {
		obj := &unstructured.Unstructured{}
		if err := documents.Decode(&obj.Object); errors.Is(err, io.EOF) {
			return file.Close()
		} else if err != nil {
			return errors.Join(err, file.Close())
		}
		if err := c.Create(ctx, obj); err != nil && !apierrors.IsAlreadyExists(err) {
			return errors.Join(err, file.Close())
		}
	}
}

// One unreadable object keeps a starting controller from reading any of its kind.
func TestTheServerRefusesObjectsThatControllersCannotRead(t *testing.T) {
	s := newScene(t)
	const (
		repository = "apiVersion: image.toolkit.fluxcd.io/v1\nkind: ImageRepository\nmetadata: {name: app}\n"
		policy     = "apiVersion: image.toolkit.fluxcd.io/v1\nkind: ImagePolicy\nmetadata: {name: app}\n"
		external   = "apiVersion: source.toolkit.fluxcd.io/v1\nkind: ExternalArtifact\nmetadata: {name: app}\n"
		source     = "apiVersion: source.contrib.fluxcd.io/v1alpha1\nkind: ArtifactRepository\nmetadata: {name: app}\n"

		scanned   = "spec: {image: ghcr.io/org/app, interval: 1h"
		picked    = "spec: {imageRepositoryRef: {name: app}, policy: {semver: {range: '*'}}"
		condition = "status: {conditions: [{type: Ready, status: 'True', reason: Tested, message: '', lastTransitionTime: '"
		artifact  = "status: {artifact: {digest: 'sha256:0000000000000000000000000000000000000000000000000000000000000000', path: a, url: http://a, revision: a, lastUpdateTime: '"
	)
	g := NewWithT(t)
	before := s.object(repository + "spec: {image: ghcr.io/org/app, interval: 9999999999h}")
	before.SetName("before")
	before.SetFinalizers([]string{"finalizers.fluxcd.io"})
	s.create(before)
	g.Expect(s.client.List(t.Context(), &imagev1.ImageRepositoryList{}, client.InNamespace(s.namespace))).NotTo(Succeed())

	g.Expect(install(t.Context(), s.client, "readable.yaml")).To(Succeed())
	refused := func(g Gomega, err error) {
		g.Expect(apierrors.IsInvalid(err) || apierrors.IsForbidden(err)).To(BeTrue(), "%v", err)
		g.Expect(err.Error()).To(ContainSubstring(readablePolicy))
	}
	s.eventually(func(g Gomega) {
		refused(g, s.client.Create(s.Context(), s.object(repository+"spec: {image: ghcr.io/org/app, interval: 9999999999h}"), client.DryRunAll))
	})
	g.Expect(s.client.Delete(t.Context(), before)).To(Succeed())
	withoutFinalizers := client.RawPatch(types.MergePatchType, []byte(`{"metadata": {"finalizers": null}}`))
	g.Expect(s.client.Patch(t.Context(), before, withoutFinalizers)).To(Succeed(), "existing objects can go")
	g.Expect(s.client.List(t.Context(), &imagev1.ImageRepositoryList{}, client.InNamespace(s.namespace))).To(Succeed())

	for sentence, text := range map[string]string{
		"an interval that overflows":                 repository + "spec: {image: ghcr.io/org/app, interval: 2562048h}",
		"a timeout that overflows":                   repository + scanned + ", timeout: 9999999999999999999s}",
		"an interval of a policy that overflows":     policy + picked + ", digestReflectionPolicy: Always, interval: 9999999999h}",
		"a time with small letters":                  repository + scanned + "}\n" + condition + "2024-01-01t00:00:00z'}]}",
		"a time in a zone that there is not":         policy + picked + "}\n" + condition + "2024-01-01T00:00:00+99:99'}]}",
		"a time with a letter in its seconds":        external + condition + "2024-01-01T00:00:00x5Z'}]}",
		"a time of a scan with small letters":        repository + scanned + "}\nstatus: {lastScanResult: {tagCount: 1, scanTime: '2024-01-01t00:00:00z'}}",
		"a time of an artifact with small letters":   external + artifact + "2024-01-01t00:00:00z'}}",
		"a time of a publication with small letters": source + "spec: {imagePolicyRef: {name: app}}\nstatus: {history: [{revision: a, digest: a, publishedAt: '2024-01-01t00:00:00z'}]}",
		"a time of a recorded artifact in no zone":   source + "spec: {imagePolicyRef: {name: app}}\n" + artifact + "2024-01-01T00:00:00+99:99'}}",
		"a time of a condition of ours in no zone":   source + "spec: {imagePolicyRef: {name: app}}\n" + condition + "2024-01-01T00:00:00+99:99'}]}",
	} {
		s.Run(sentence, func(t *testing.T) {
			g := NewWithT(t)
			obj := s.object(text)
			status, inStatus := obj.Object["status"]
			if !inStatus {
				refused(g, s.client.Create(t.Context(), obj))
				return
			}
			g.Expect(s.client.Create(t.Context(), obj)).To(Succeed())
			defer func() { g.Expect(s.client.Delete(t.Context(), obj)).To(Succeed()) }()
			edited := obj.DeepCopy()
			edited.Object["status"] = status
			refused(g, s.client.Status().Update(t.Context(), edited))
		})
	}
	for sentence, text := range map[string]string{
		"ten years":               repository + "spec: {image: ghcr.io/org/app, interval: 87600h, timeout: 1m30.5s}",
		"a policy without times":  policy + picked + "}",
		"times as they should be": repository + scanned + "}\n" + condition + "2024-01-01T00:00:00.5+02:00'}], lastScanResult: {tagCount: 1, scanTime: '2024-01-01T00:00:00Z'}}",
		"a record as it is":       source + "spec: {imagePolicyRef: {name: app}}\nstatus: {history: [{revision: a, digest: a, publishedAt: '2024-01-01T00:00:00Z'}]}",
		"an artifact as it is":    external + artifact + "2024-01-01T00:00:00Z'}}",
	} {
		s.Run(sentence, func(t *testing.T) {
			g := NewWithT(t)
			obj := s.object(text)
			status, inStatus := obj.Object["status"]
			g.Expect(s.client.Create(t.Context(), obj)).To(Succeed())
			defer func() { g.Expect(s.client.Delete(t.Context(), obj)).To(Succeed()) }()
			if inStatus {
				obj.Object["status"] = status
				g.Expect(s.client.Status().Update(t.Context(), obj)).To(Succeed())
			}
		})
	}
}
