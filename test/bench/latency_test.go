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

// Package bench measures the project on the real control plane. It has
// benchmarks and no tests: what they find depends on the machine.
package bench

import (
	"context"
	"crypto/rand"
	"fmt"
	"os"
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	"sigs.k8s.io/controller-runtime/pkg/client"

	imagev1 "github.com/fluxcd/image-reflector-controller/api/v1"
	"github.com/fluxcd/pkg/apis/meta"
	"github.com/fluxcd/pkg/runtime/conditions"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"

	"github.com/image-source/image-source-controller/api/v1alpha1"
	"github.com/image-source/image-source-controller/test/controlplane"
	"github.com/image-source/image-source-controller/test/publish"
	"github.com/image-source/image-source-controller/test/stage"
)

const (
	namespace = "bench"
	app       = "app"
	patience  = time.Minute
)

// BenchmarkPolicyChangeToExternalArtifact measures the time from the moment at
// which the status of an ImagePolicy is about to be written with a new pick to
// the moment at which a watcher sees the ExternalArtifact of it, for a clean
// layer of 50 KiB. It reports the median and the 90th percentile.
//
// The benchmark writes the status itself, so that no scan is part of the time.
func BenchmarkPolicyChangeToExternalArtifact(b *testing.B) {
	ctx := b.Context()
	s, err := stage.Start(ctx, controlplane.Options{Registry: true, Progress: os.Stderr})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := s.Stop(); err != nil {
			b.Error(err)
		}
	})
	if _, err := s.StartController(ctx, stage.ControllerOptions{}); err != nil {
		b.Fatal(err)
	}
	policy, err := follow(ctx, s)
	if err != nil {
		b.Fatal(err)
	}
	seen, err := s.Client.Watch(ctx, &sourcev1.ExternalArtifactList{}, client.InNamespace(namespace))
	if err != nil {
		b.Fatal(err)
	}
	defer seen.Stop()

	var times []time.Duration
	for version := 0; b.Loop(); version++ {
		b.StopTimer()
		tag := fmt.Sprintf("1.0.%d", version)
		if err := push(ctx, s, tag); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
		start := time.Now()
		if err := pick(ctx, s, policy, tag); err != nil {
			b.Fatal(err)
		}
		if err := published(ctx, seen, tag); err != nil {
			b.Fatal(err)
		}
		if version > 0 { // the first one finds nothing warm
			times = append(times, time.Since(start))
		}
	}
	if len(times) == 0 {
		return
	}
	slices.Sort(times)
	milliseconds := func(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
	b.ReportMetric(milliseconds(times[len(times)/2]), "median-ms")
	b.ReportMetric(milliseconds(times[len(times)*9/10]), "p90-ms")
}

// follow makes a namespace with a policy that is a source.
func follow(ctx context.Context, s *stage.Stage) (*imagev1.ImagePolicy, error) {
	repository := &imagev1.ImageRepository{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: app}}
	repository.Spec.Image = s.Registry().Host() + "/" + app
	repository.Spec.Insecure = true
	repository.Spec.Interval.Duration = time.Hour
	policy := &imagev1.ImagePolicy{ObjectMeta: metav1.ObjectMeta{
		Namespace: namespace, Name: app, Annotations: map[string]string{v1alpha1.UseAsSource: v1alpha1.UseAsSourceTrue},
	}}
	policy.Spec.ImageRepositoryRef.Name = app
	policy.Spec.Policy.SemVer = &imagev1.SemVerPolicy{Range: ">=0.0.0"}
	for _, obj := range []client.Object{
		&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{
			Name: namespace, Labels: map[string]string{v1alpha1.UseAsSource: v1alpha1.UseAsSourceEnabled},
		}},
		repository, policy,
	} {
		if err := s.Client.Create(ctx, obj); err != nil {
			return nil, err
		}
	}
	return policy, nil
}

// push pushes a version of 50 KiB that does not compress.
func push(ctx context.Context, s *stage.Stage, tag string) error {
	content := make([]byte, 50<<10)
	_, _ = rand.Read(content) // never fails
	_, err := publish.Registry{Host: s.Registry().Host()}.Flux(ctx, app+":"+tag, publish.Files{"app.yaml": string(content)})
	return err
}

// pick writes a status as image-reflector-controller does.
func pick(ctx context.Context, s *stage.Stage, policy *imagev1.ImagePolicy, tag string) error {
	before := policy.DeepCopy()
	policy.Status.ObservedGeneration = policy.Generation
	policy.Status.LatestRef = &imagev1.ImageRef{Name: s.Registry().Host() + "/" + app, Tag: tag}
	conditions.MarkTrue(policy, meta.ReadyCondition, meta.SucceededReason, "picked %s", tag)
	return s.Client.Status().Patch(ctx, policy, client.MergeFrom(before))
}

// published waits until a tag is what consumers see.
func published(ctx context.Context, seen watch.Interface, tag string) error {
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	for {
		select {
		case event := <-seen.ResultChan():
			external, ok := event.Object.(*sourcev1.ExternalArtifact)
			if ok && external.Status.Artifact != nil && external.Status.Artifact.Metadata[v1alpha1.MetadataTag] == tag {
				return nil
			}
		case <-deadline.C:
			return fmt.Errorf("%s was not published within %s", tag, patience)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
