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
	"fmt"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	imagev1 "github.com/fluxcd/image-reflector-controller/api/v1"
	"github.com/fluxcd/pkg/apis/meta"
	"github.com/fluxcd/pkg/runtime/conditions"

	"github.com/image-source/image-source-controller/api/v1alpha1"
)

// unscanned labels image objects whose status this program writes itself, so that
// no scan is part of what is measured.
const unscanned = "bench.example/unscanned"

// follow makes policies that are sources, each of an ImageRepository of its own.
func (l *lap) follow(ctx context.Context, repositories []string, interval time.Duration) ([]*imagev1.ImagePolicy, error) {
	all := make([]*imagev1.ImagePolicy, len(repositories))
	return all, each(ctx, len(repositories), func(ctx context.Context, i int) error {
		about := metav1.ObjectMeta{Namespace: l.namespace, Name: fmt.Sprintf("policy-%d", i), Labels: map[string]string{unscanned: ""}}
		repository := &imagev1.ImageRepository{ObjectMeta: about}
		repository.Spec.Image = l.shelf.Host + "/" + repositories[i]
		repository.Spec.Insecure = true
		repository.Spec.Interval.Duration = interval
		policy := &imagev1.ImagePolicy{ObjectMeta: about}
		policy.Annotations = map[string]string{v1alpha1.UseAsSource: v1alpha1.UseAsSourceTrue}
		policy.Spec.ImageRepositoryRef.Name = repository.Name
		policy.Spec.Policy.SemVer = &imagev1.SemVerPolicy{Range: ">=0.0.0"}
		all[i] = policy
		if err := l.Client.Create(ctx, repository); err != nil {
			return err
		}
		return l.Client.Create(ctx, policy)
	})
}

// pick writes the status of a policy as image-reflector-controller does.
func (l *lap) pick(ctx context.Context, policy *imagev1.ImagePolicy, ref imagev1.ImageRef) error {
	before := policy.DeepCopy()
	policy.Status.ObservedGeneration = policy.Generation
	policy.Status.LatestRef = &ref
	conditions.MarkTrue(policy, meta.ReadyCondition, meta.SucceededReason, "picked %s", ref.Tag)
	return l.Client.Status().Patch(ctx, policy, client.MergeFrom(before))
}

// policies publishes what policies pick that reflect the digest, and watches an
// interval in which nothing changes.
func policies(n int, interval time.Duration) scenario {
	const short = 8 // of an interval: nothing is looked at, so that little is to be waited for
	interval /= short
	return scenario{
		name: "policies", alone: true,
		phases: []phase{
			{name: "publish", title: fmt.Sprintf("%d annotated policies that reflect the digest, 40 KiB", n), count: n},
			{name: "idle", title: fmt.Sprintf("%d such policies for two intervals of %s without change", n, interval), count: 2 * n},
		},
		prepare: func(ctx context.Context, b *bench) error { return b.push(ctx, small, n, first) },
		run: func(ctx context.Context, l *lap) ([]*usage, error) {
			repositories, want := make([]string, n), map[string]string{}
			for i := range n {
				repositories[i] = small.repository(i)
				want[fmt.Sprintf("policy-%d", i)] = first
			}
			all, err := l.follow(ctx, repositories, interval)
			if err != nil {
				return nil, err
			}
			if err := l.settle(ctx); err != nil {
				return nil, err
			}
			published, err := l.work(ctx, nil, func(ctx context.Context, _ []source) error {
				if err := each(ctx, n, func(ctx context.Context, i int) error { return l.reflect(ctx, all[i], repositories[i]) }); err != nil {
					return err
				}
				return l.await(ctx, want)
			})
			if err != nil {
				return nil, err
			}
			idle, err := l.idle(ctx, 2*interval)
			return []*usage{published, idle}, err
		},
	}
}

// reflect picks the first tag of a repository, with its digest.
func (l *lap) reflect(ctx context.Context, policy *imagev1.ImagePolicy, repository string) error {
	digest, err := l.digest(repository + ":" + first)
	if err != nil {
		return err
	}
	return l.pick(ctx, policy, imagev1.ImageRef{Name: l.shelf.Host + "/" + repository, Tag: first, Digest: digest})
}
