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

package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"

	imagev1 "github.com/fluxcd/image-reflector-controller/api/v1"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"

	"github.com/image-source/image-source-controller/api/v1alpha1"
	"github.com/image-source/image-source-controller/test/publish"
)

// delay is how long users wait, in milliseconds.
type delay struct {
	// Name and Title say for what; Times is how often it was measured.
	Name, Title  string
	Times        int
	Ours, Theirs *quantiles
}

// quantiles are of times in milliseconds.
type quantiles struct{ Median, P90 float64 }

func quantilesOf(times []time.Duration) *quantiles {
	if len(times) == 0 {
		return nil
	}
	slices.Sort(times)
	milliseconds := func(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
	return &quantiles{Median: milliseconds(times[len(times)/2]), P90: milliseconds(times[len(times)*9/10])}
}

// latency is something that users wait for.
type latency struct {
	name, title string
	times       int
	measure     func(ctx context.Context, l *lap, times int) ([]time.Duration, error)
}

func latencies(s sizes) []latency {
	return []latency{
		{"latency", "a pick or a tag changes, and the artifact of 50 KiB is published", s.latencies, pickToPublished},
		{"deploy", fmt.Sprintf("push, and a Kustomization has applied it; scanned every %s", scanned), s.deployments, pushToApplied},
	}
}

// delays measures a latency of all contenders.
func (b *bench) delays(ctx context.Context, what latency) (*delay, error) {
	d := &delay{Name: what.name, Title: what.title, Times: what.times}
	for i, c := range contenders() {
		times, err := b.delay(ctx, what, c)
		if err != nil {
			return nil, err
		}
		q := quantilesOf(times)
		if i == 0 {
			d.Ours = q
		} else {
			d.Theirs = q
		}
		b.say("%s: %s: %.0f ms, nine of ten within %.0f ms", what.name, c, q.Median, q.P90)
	}
	return d, nil
}

func (b *bench) delay(ctx context.Context, what latency, c contender) (_ []time.Duration, err error) {
	l, err := b.lap(ctx, c)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, l.finish(ctx)) }()
	return what.measure(ctx, l, what.times)
}

// pickToPublished measures from the moment at which the next version is asked for
// to the moment at which consumers see it: of ours by the status of an annotated
// ImagePolicy, of theirs by the tag of an OCIRepository.
func pickToPublished(ctx context.Context, l *lap, times int) (all []time.Duration, err error) {
	repository := asked.repository(0)
	next, name, err := l.chooser(ctx, repository)
	if err != nil {
		return nil, err
	}
	for i := range times + 1 {
		tag := fmt.Sprintf("1.0.%d", i)
		if err := l.pushOne(ctx, asked, repository+":"+tag); err != nil {
			return nil, err
		}
		took, err := l.time(ctx, map[string]string{name: tag}, func() error { return next(tag) })
		if err != nil {
			return nil, err
		}
		if i > 0 { // the first one creates objects
			all = append(all, took)
		}
	}
	return all, nil
}

// time measures how long consumers wait for what some step asks for.
func (l *lap) time(ctx context.Context, want map[string]string, ask func() error) (time.Duration, error) {
	seen := make(chan error, 1)
	watching := make(chan struct{})
	go func() { seen <- l.awaitFrom(ctx, want, watching) }()
	select {
	case <-watching:
	case err := <-seen:
		return 0, fmt.Errorf("%v is published before it is asked for: %w", want, err)
	}
	start := time.Now()
	if err := ask(); err != nil {
		return 0, err
	}
	err := <-seen
	return time.Since(start), err
}

// chooser returns what asks for a tag, and the name under which it appears.
func (l *lap) chooser(ctx context.Context, repository string) (next func(tag string) error, name string, err error) {
	if l.contender == (ours{}) {
		policies, err := l.follow(ctx, []string{repository}, once)
		if err != nil {
			return nil, "", err
		}
		return func(tag string) error {
			return l.pick(ctx, policies[0], imagev1.ImageRef{Name: l.shelf.Host + "/" + repository, Tag: tag})
		}, policies[0].Name, nil
	}
	s := source{name: asked.name, repository: repository, interval: once}
	return func(tag string) error {
		if s.tag = tag; l.objects[s.name] == nil {
			return l.create(ctx, []source{s})
		}
		return l.retag(ctx, []source{s})
	}, s.name, nil
}

// scanned is the interval at which registries are looked at for deployments.
const scanned = 4 * time.Second

// pushToApplied measures from the end of a push to the moment at which a
// ConfigMap of the version is in the cluster. Pushes come at random moments, so
// that half an interval on the average is part of it.
func pushToApplied(ctx context.Context, l *lap, times int) (all []time.Duration, err error) {
	repository := "deploy/" + l.namespace
	push := func(tag string) error {
		_, err := l.shelf.Flux(ctx, repository+":"+tag, publish.Files{
			"app.yaml": "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: app\ndata:\n  version: " + tag + "\n",
		})
		return err
	}
	if err := push("1.0.0"); err != nil {
		return nil, err
	}
	if err := l.deploy(ctx, repository); err != nil {
		return nil, err
	}
	if err := l.applied(ctx, "1.0.0"); err != nil {
		return nil, err
	}
	phase := rand.New(rand.NewPCG(1, 2))
	for i := range times {
		if err := pause(ctx, time.Duration(phase.Int64N(int64(scanned)))); err != nil {
			return nil, err
		}
		tag := fmt.Sprintf("1.%d.0", i+1)
		if err := push(tag); err != nil {
			return nil, err
		}
		start := time.Now()
		if err := l.applied(ctx, tag); err != nil {
			return nil, err
		}
		all = append(all, time.Since(start))
	}
	return all, nil
}

// deploy has the newest version of a repository deployed: by an annotated
// ImagePolicy, or by an OCIRepository.
func (l *lap) deploy(ctx context.Context, repository string) error {
	about := metav1.ObjectMeta{Namespace: l.namespace, Name: "app"}
	kustomization := &unstructured.Unstructured{}
	kustomization.SetAPIVersion("kustomize.toolkit.fluxcd.io/v1")
	kustomization.SetKind("Kustomization")
	kustomization.SetNamespace(l.namespace)
	kustomization.SetName(about.Name)
	origin := map[string]any{"kind": sourcev1.OCIRepositoryKind, "name": about.Name}
	objects := []client.Object{kustomization}
	if l.contender == (ours{}) {
		origin["kind"] = sourcev1.ExternalArtifactKind
		images := &imagev1.ImageRepository{ObjectMeta: about}
		images.Spec.Image = l.shelf.Host + "/" + repository
		images.Spec.Insecure = true
		images.Spec.Interval.Duration = scanned
		policy := &imagev1.ImagePolicy{ObjectMeta: about}
		policy.Annotations = map[string]string{v1alpha1.UseAsSource: v1alpha1.UseAsSourceTrue}
		policy.Spec.ImageRepositoryRef.Name = about.Name
		policy.Spec.Policy.SemVer = &imagev1.SemVerPolicy{Range: ">=1.0.0"}
		objects = append(objects, images, policy)
	} else {
		repo := l.contender.object(l.shelf.Host, source{name: about.Name, repository: repository, interval: scanned}).(*sourcev1.OCIRepository)
		repo.Namespace = l.namespace
		repo.Spec.Reference = &sourcev1.OCIRepositoryRef{SemVer: ">=1.0.0"}
		objects = append(objects, repo)
	}
	kustomization.Object["spec"] = map[string]any{
		"interval": "1h", "path": "./", "prune": false, "targetNamespace": l.namespace, "sourceRef": origin,
	}
	for _, obj := range objects {
		if err := l.Client.Create(ctx, obj); err != nil {
			return err
		}
	}
	return nil
}

// applied waits until a version is in the cluster.
func (l *lap) applied(ctx context.Context, version string) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		events, err := l.Client.Watch(ctx, &corev1.ConfigMapList{}, client.InNamespace(l.namespace), client.MatchingFields{"metadata.name": "app"})
		if err != nil {
			return err
		}
		for event := range events.ResultChan() {
			if config, ok := event.Object.(*corev1.ConfigMap); ok && config.Data["version"] == version {
				events.Stop()
				return nil
			}
		}
		if ctx.Err() != nil {
			return fmt.Errorf("%s is not applied: %w", version, ctx.Err())
		}
	}
}
