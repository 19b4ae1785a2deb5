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
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
	"sigs.k8s.io/controller-runtime/pkg/client"

	imagev1 "github.com/fluxcd/image-reflector-controller/api/v1"

	"github.com/image-source/image-source-controller/api/v1alpha1"
	"github.com/image-source/image-source-controller/test/controlplane"
	"github.com/image-source/image-source-controller/test/publish"
	"github.com/image-source/image-source-controller/test/stage"
)

const (
	// patience bounds each step that is waited for.
	patience = 5 * time.Minute
	// userAgent is how this program names itself to the registry.
	userAgent = "benchmark"
	// once is an interval after which nothing happens while something is measured.
	once = 10 * time.Hour
	// quick is how many requests this program has under way.
	quick = 8
)

// bench is what all scenarios share.
type bench struct {
	*stage.Stage
	options options
	api     kubernetes.Interface
	shelf   publish.Registry // to push to

	launched int // processes, for their names
	courses  int // scenarios that were run, for the order in the next one
	// pace is the most that one of many tiny sources took to publish so far.
	pace time.Duration

	mu  sync.Mutex
	own map[string]int // writes of this program
}

// open starts the control plane. Beside the API server and the registry it runs
// what the measurements from push to deployment need; both are idle otherwise.
func open(ctx context.Context, o options) (*bench, error) {
	root, err := controlplane.Root()
	if err != nil {
		return nil, err
	}
	unlimited := []string{"--kube-api-qps=500", "--kube-api-burst=1000"}
	b := &bench{options: o, own: map[string]int{}}
	b.Stage, err = stage.Start(ctx, controlplane.Options{
		Registry:    true,
		Progress:    os.Stderr,
		Controllers: []string{controlplane.ImageReflectorController, controlplane.KustomizeController},
		ControllerArgs: map[string][]string{
			controlplane.ImageReflectorController: append([]string{"--watch-label-selector=!" + unscanned}, unlimited...),
			controlplane.KustomizeController:      unlimited,
		},
		// The garbage collector is to know these kinds from its start.
		CRDPaths: []string{filepath.Join(root, "config", "crd", "bases")},
	})
	if err != nil {
		return nil, err
	}
	if b.api, err = kubernetes.NewForConfig(b.RESTConfig()); err != nil {
		return nil, errors.Join(err, b.Stop())
	}
	b.shelf = publish.Registry{Host: b.Registry().Host(), Transport: named{http.DefaultTransport.(*http.Transport).Clone()}}
	return b, nil
}

// named names this program to the registry.
type named struct{ http.RoundTripper }

func (n named) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.Header.Set("User-Agent", userAgent)
	return n.RoundTripper.RoundTrip(r)
}

// wrote counts a write of this program.
func (b *bench) wrote(verb string, obj client.Object) error {
	kind, err := b.Client.GroupVersionKindFor(obj)
	if err != nil {
		return err
	}
	mapping, err := b.Client.RESTMapper().RESTMapping(kind.GroupKind(), kind.Version)
	if err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.own[verb+" "+mapping.Resource.Resource]++
	return nil
}

func (b *bench) written() map[string]int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return maps.Clone(b.own)
}

// lap is one life of one contender.
type lap struct {
	*bench
	*meter
	contender contender
	process   *process
	namespace string
	objects   map[string]client.Object // by name
	// profiled is the scenario that profiles are kept of, "" for none.
	profiled  string
	recording sync.WaitGroup
}

// lap starts a contender with nothing in its storage, in a namespace of its own,
// and has it publish something, so that what is measured finds it warm.
func (b *bench) lap(ctx context.Context, c contender) (_ *lap, err error) {
	b.launched++
	name := fmt.Sprintf("%s-%d", c, b.launched)
	l := &lap{bench: b, contender: c, namespace: name, objects: map[string]client.Object{}}
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{
		Name: name, Labels: map[string]string{v1alpha1.UseAsSource: v1alpha1.UseAsSourceEnabled},
	}}
	if err := b.Client.Create(ctx, namespace); err != nil {
		return nil, err
	}
	flags := []string{fmt.Sprintf("--concurrent=%d", b.options.concurrent), "--kube-api-qps=500", "--kube-api-burst=1000"}
	if l.process, err = c.launch(ctx, b.Stage, name, flags); err != nil {
		return nil, err
	}
	l.meter = &meter{pid: l.process.PID(), registry: b.Registry(), api: b.api, own: b.written}
	if err := l.warmUp(ctx); err != nil {
		return nil, errors.Join(err, l.finish(ctx))
	}
	return l, nil
}

// warmUp publishes a few small artifacts of which nothing is shared with others.
func (l *lap) warmUp(ctx context.Context) error {
	var all []source
	for i := range l.options.concurrent {
		all = append(all, source{name: fmt.Sprintf("warm-%d", i), repository: warm.repository(i), tag: first, interval: once})
	}
	if err := l.create(ctx, all); err != nil {
		return err
	}
	if err := l.await(ctx, wanted(all)); err != nil {
		return err
	}
	return l.settle(ctx)
}

// finish removes what the contender was asked for, waits until that and what it
// published is gone, and ends it. The empty namespace stays: its end would be
// work for the API server while the next one is measured.
func (l *lap) finish(ctx context.Context) error {
	return errors.Join(l.clear(ctx), l.process.end())
}

func (l *lap) clear(ctx context.Context) error {
	asked := l.contender.object("", source{})
	// Policies first: for each of them an object would be made again.
	for _, obj := range []client.Object{&imagev1.ImagePolicy{}, &imagev1.ImageRepository{}, asked} {
		if err := l.Client.DeleteAllOf(ctx, obj, client.InNamespace(l.namespace)); err != nil {
			return err
		}
	}
	waiting, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	return stage.Until(waiting, func(ctx context.Context) error {
		for _, list := range []client.ObjectList{l.contender.requests(), l.contender.publications()} {
			if err := l.Client.List(ctx, list, client.InNamespace(l.namespace), client.Limit(1)); err != nil {
				return err
			}
			if n := apimeta.LenList(list); n > 0 {
				return fmt.Errorf("objects of %s are still there", l.contender)
			}
		}
		return nil
	})
}

// create creates the objects that ask for sources.
func (l *lap) create(ctx context.Context, sources []source) error {
	host := l.Registry().Host()
	var mu sync.Mutex
	return each(ctx, len(sources), func(ctx context.Context, i int) error {
		obj := l.contender.object(host, sources[i])
		obj.SetNamespace(l.namespace)
		if err := l.wrote("POST", obj); err != nil {
			return err
		}
		if err := l.Client.Create(ctx, obj); err != nil {
			return err
		}
		mu.Lock()
		defer mu.Unlock()
		l.objects[obj.GetName()] = obj
		return nil
	})
}

// retag makes existing sources ask for another tag.
func (l *lap) retag(ctx context.Context, sources []source) error {
	return each(ctx, len(sources), func(ctx context.Context, i int) error {
		obj := l.objects[sources[i].name]
		before := obj.DeepCopyObject().(client.Object)
		l.contender.retag(obj, sources[i].tag)
		if err := l.wrote("PATCH", obj); err != nil {
			return err
		}
		return l.Client.Patch(ctx, obj, client.MergeFrom(before))
	})
}

// wanted is what consumers shall see: the tag by the name of a source.
func wanted(sources []source) map[string]string {
	want := map[string]string{}
	for _, s := range sources {
		want[s.name] = s.tag
	}
	return want
}

// await waits until consumers see what is wanted.
func (l *lap) await(ctx context.Context, want map[string]string) error {
	return l.awaitFrom(ctx, want, make(chan struct{}))
}

// awaitFrom does so, and closes watching when it sees all that happens.
func (l *lap) awaitFrom(ctx context.Context, want map[string]string, watching chan struct{}) error {
	began := sync.OnceFunc(func() { close(watching) })
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stuck := time.AfterFunc(patience, func() { cancel(fmt.Errorf("nothing was published for %s", patience)) })
	defer stuck.Stop()
	want = maps.Clone(want)
	for len(want) > 0 {
		if err := l.look(ctx, want, func() { stuck.Reset(patience) }, began); err != nil {
			return fmt.Errorf("%d sources of %s are not published: %w", len(want), l.contender, err)
		}
	}
	return nil
}

// look removes from want what is published, until nothing is left or the API
// server ends the watch.
func (l *lap) look(ctx context.Context, want map[string]string, progress, watching func()) error {
	list := l.contender.publications()
	if err := l.Client.List(ctx, list, client.InNamespace(l.namespace)); err != nil {
		return err
	}
	objects, err := apimeta.ExtractList(list)
	if err != nil {
		return err
	}
	see := func(obj client.Object) {
		artifact := l.contender.artifact(obj)
		if tag, ok := want[obj.GetName()]; ok && artifact != nil && tagOf(artifact.Revision) == tag {
			delete(want, obj.GetName())
			progress()
		}
	}
	for _, obj := range objects {
		see(obj.(client.Object))
	}
	if len(want) == 0 {
		return nil
	}
	events, err := l.Client.Watch(ctx, l.contender.publications(), client.InNamespace(l.namespace),
		&client.ListOptions{Raw: &metav1.ListOptions{ResourceVersion: list.GetResourceVersion()}})
	if err != nil {
		return err
	}
	defer events.Stop()
	watching()
	for len(want) > 0 {
		select {
		case event, open := <-events.ResultChan():
			if !open || event.Type == watch.Error {
				return nil
			}
			see(event.Object.(client.Object))
		case <-l.process.Exited():
			return fmt.Errorf("the process has ended, see %s", l.process.LogFile())
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}

// tagOf returns the tag in a revision, which may go on with + and what says how
// the content was read.
func tagOf(revision string) string {
	tag, _, _ := strings.Cut(revision, "@")
	tag, _, _ = strings.Cut(tag, "+")
	return tag
}

// work measures what a contender does until all that is wanted is published.
func (l *lap) work(ctx context.Context, sources []source, ask func(context.Context, []source) error) (*usage, error) {
	from, err := l.begin(ctx)
	if err != nil {
		return nil, err
	}
	if err := ask(ctx, sources); err != nil {
		return nil, err
	}
	if err := l.await(ctx, wanted(sources)); err != nil {
		return nil, err
	}
	done := time.Now()
	if err := l.settle(ctx); err != nil {
		return nil, err
	}
	return l.used(ctx, from, done)
}

// idle measures what a contender does in some time in which nothing changes. It has
// no wall time: what passes is waited for.
func (l *lap) idle(ctx context.Context, d time.Duration) (*usage, error) {
	l.record(ctx, idleTime, d)
	from, err := l.begin(ctx)
	if err != nil {
		return nil, err
	}
	if err := pause(ctx, d); err != nil {
		return nil, err
	}
	u, err := l.used(ctx, from, time.Now())
	if err != nil {
		return nil, err
	}
	u.Wall = 0
	return u, nil
}

// rebuild ends the process, takes away all that it has stored, and measures
// what it takes to start again and to serve the sources. The life of the new
// process counts from its begin.
func (l *lap) rebuild(ctx context.Context, sources []source) (*usage, error) {
	from, err := l.begin(ctx)
	if err != nil {
		return nil, err
	}
	if err := l.process.restartEmpty(ctx); err != nil {
		return nil, err
	}
	l.pid, from.cpu = l.process.PID(), 0
	for _, s := range sources {
		if err := l.served(ctx, s.name); err != nil {
			return nil, err
		}
	}
	done := time.Now()
	if err := l.settle(ctx); err != nil {
		return nil, err
	}
	return l.used(ctx, from, done)
}

// served fetches a published artifact as a consumer does and checks its digest.
func (l *lap) served(ctx context.Context, name string) error {
	list := l.contender.publications()
	if err := l.Client.List(ctx, list, client.InNamespace(l.namespace)); err != nil {
		return err
	}
	objects, err := apimeta.ExtractList(list)
	if err != nil {
		return err
	}
	for _, obj := range objects {
		if obj := obj.(client.Object); obj.GetName() == name {
			artifact := l.contender.artifact(obj)
			return fetch(ctx, artifact.URL, artifact.Digest)
		}
	}
	return fmt.Errorf("%s is not published", name)
}

// fetch reads a URL to its end and compares the digest.
func fetch(ctx context.Context, url, want string) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("%s answers %s", url, response.Status)
	}
	sum := sha256.New()
	if _, err := io.Copy(sum, response.Body); err != nil {
		return err
	}
	if got := "sha256:" + hex.EncodeToString(sum.Sum(nil)); got != want {
		return fmt.Errorf("%s has the digest %s, expected %s", url, got, want)
	}
	return nil
}

// each calls f for 0 to n-1, some at a time.
func each(ctx context.Context, n int, f func(context.Context, int) error) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(quick)
	for i := range n {
		group.Go(func() error { return f(ctx, i) })
	}
	return group.Wait()
}
