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
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/image-source/image-source-controller/test/publish"
)

// scenario is some work that every contender does in turn.
type scenario struct {
	name string
	// once is set for what takes long: it is measured in one round.
	once bool
	// alone is set for what only image-source-controller can do.
	alone bool
	// phases are what is measured, in order.
	phases []phase
	// prepare pushes what is published; nil for nothing.
	prepare func(context.Context, *bench) error
	// run does all phases in one life of a contender and returns what each took.
	run func(context.Context, *lap) ([]*usage, error)
}

// phase is a part of a scenario that is measured by itself.
type phase struct {
	name string
	// title says what is done, for people.
	title string
	// count is what the costs are divided by: artifacts, or sources times intervals.
	count int
	// shape is that of the artifacts.
	shape string
	// sources is set for phases of numbers of sources that grow.
	sources int
}

// sizes are how much is done; the smoke test does little.
type sizes struct {
	small, signed, large, policies, formats, rebuilt, latencies, deployments int
	grow                                                                     []int
	// interval at which sources are looked at again, and the time that is watched.
	interval time.Duration
}

func usual(full bool) sizes {
	s := sizes{small: 200, signed: 50, large: 10, policies: 200, formats: 20, rebuilt: 100, latencies: 50, deployments: 15, grow: []int{100, 500, 1000}, interval: 40 * time.Second}
	if full {
		s.grow = append(s.grow, 5000)
	}
	return s
}

// program is what a run consists of.
type program struct {
	scenarios []scenario
	sizes     sizes
}

func plan(o options) program {
	s := usual(o.full)
	c := program{sizes: s, scenarios: []scenario{
		applications(s.small), shared(s.small), signed(s.signed),
		artifacts(clean, s.large), artifacts(linked, s.large), artifacts(book, s.large), artifacts(linkedBook, s.large), artifacts(huge, 1),
		policies(s.policies, s.interval), formats(s.formats), rebuilt(s.rebuilt, o.concurrent),
	}}
	if o.full {
		c.scenarios = append(c.scenarios, artifacts(huge, s.large), artifacts(hugeLinked, s.large))
	}
	for _, n := range s.grow {
		c.scenarios = append(c.scenarios, growth(n, s.interval))
	}
	return c
}

// applications publishes small artifacts, and then a new tag of each of them.
func applications(n int) scenario {
	return scenario{
		name: "small",
		phases: []phase{
			{name: "publish", title: fmt.Sprintf("%d artifacts of 40 KiB", n), count: n, shape: small.name},
			{name: "wave", title: fmt.Sprintf("a new tag for each of %d such sources", n), count: n, shape: small.name},
		},
		prepare: func(ctx context.Context, b *bench) error {
			return errors.Join(b.push(ctx, small, n, first), b.push(ctx, small, n, second))
		},
		run: func(ctx context.Context, l *lap) ([]*usage, error) {
			published, err := l.work(ctx, small.sources(n, first), l.create)
			if err != nil {
				return nil, err
			}
			wave, err := l.work(ctx, small.sources(n, second), l.retag)
			if err != nil {
				return nil, err
			}
			return []*usage{published, wave}, l.served(ctx, small.sources(1, second)[0].name)
		},
	}
}

// shared publishes one digest under many names.
func shared(n int) scenario {
	shape := small
	shape.name = "shared"
	return scenario{
		name:    "shared",
		phases:  []phase{{name: "publish", title: fmt.Sprintf("%d sources of one digest, 40 KiB", n), count: n}},
		prepare: func(ctx context.Context, b *bench) error { return b.push(ctx, shape, 1, first) },
		run: func(ctx context.Context, l *lap) ([]*usage, error) {
			all := shape.sources(n, first)
			for i := range all {
				all[i].repository = all[0].repository
			}
			u, err := l.work(ctx, all, l.create)
			return []*usage{u}, err
		},
	}
}

// signed publishes small artifacts that a key must have signed.
func signed(n int) scenario {
	shape := small
	shape.name = "signed"
	var key []byte
	return scenario{
		name:   "signed",
		phases: []phase{{name: "publish", title: fmt.Sprintf("%d artifacts of 40 KiB, signature of a key verified", n), count: n}},
		prepare: func(ctx context.Context, b *bench) error {
			signer, err := publish.NewSigner()
			if err != nil {
				return err
			}
			key = signer.PublicKey
			if err := b.push(ctx, shape, n, first); err != nil {
				return err
			}
			return each(ctx, n, func(ctx context.Context, i int) error {
				return b.shelf.Sign(ctx, shape.repository(i)+":"+first, signer)
			})
		},
		run: func(ctx context.Context, l *lap) ([]*usage, error) {
			secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: l.namespace, Name: "cosign"}, Data: map[string][]byte{"cosign.pub": key}}
			if err := l.Client.Create(ctx, secret); err != nil {
				return nil, err
			}
			all := shape.sources(n, first)
			for i := range all {
				all[i].key = secret.Name
			}
			u, err := l.work(ctx, all, l.create)
			return []*usage{u}, err
		},
	}
}

// rebuilt publishes small artifacts and loses the disk that they are on, and
// what the process published before them.
func rebuilt(n, before int) scenario {
	shape := small
	shape.name = "rebuilt"
	return scenario{
		name: "rebuilt", alone: true,
		phases: []phase{
			{name: "publish", title: fmt.Sprintf("%d artifacts of 40 KiB", n), count: n},
			{name: "rebuild", title: fmt.Sprintf("%d made again after the loss of the disk, with the start of the process", n+before), count: n + before},
		},
		prepare: func(ctx context.Context, b *bench) error { return b.push(ctx, shape, n, first) },
		run: func(ctx context.Context, l *lap) ([]*usage, error) {
			all := shape.sources(n, first)
			published, err := l.work(ctx, all, l.create)
			if err != nil {
				return nil, err
			}
			again, err := l.rebuild(ctx, all)
			return []*usage{published, again}, err
		},
	}
}

// artifacts publishes large artifacts at once.
func artifacts(s shape, n int) scenario {
	title := map[string]string{
		clean.name:      "40 MB of settings, 16 MiB compressed, clean",
		linked.name:     "the same with a link: archived again",
		book.name:       "40 MB of prose, 18 MiB compressed, clean",
		linkedBook.name: "that prose with a link: archived again",
		huge.name:       "500 MiB, clean",
		hugeLinked.name: "500 MiB with a link: archived again",
	}[s.name]
	return scenario{
		name:    fmt.Sprintf("%s-%d", s.name, n),
		once:    s.text == noise,
		phases:  []phase{{name: "publish", title: fmt.Sprintf("%d x %s", n, title), count: n, shape: s.name}},
		prepare: func(ctx context.Context, b *bench) error { return b.push(ctx, s, n, first) },
		run: func(ctx context.Context, l *lap) ([]*usage, error) {
			all := s.sources(n, first)
			u, err := l.work(ctx, all, l.create)
			if err != nil {
				return nil, err
			}
			return []*usage{u}, l.served(ctx, all[0].name)
		},
	}
}

// growth publishes a number of tiny artifacts, and then watches while each of
// them is looked at once more and nothing has changed. The interval grows with
// the number, so that nothing is looked at again before all is published, nor
// twice afterwards.
func growth(n int, least time.Duration) scenario {
	var interval time.Duration // the same for all contenders
	return scenario{
		name: fmt.Sprintf("grow-%d", n),
		once: true,
		phases: []phase{
			{name: "publish", title: fmt.Sprintf("%d sources of 3 KiB", n), count: n, sources: n},
			{name: "idle", title: fmt.Sprintf("%d sources looked at once without change", n), count: n, sources: n},
		},
		prepare: func(ctx context.Context, b *bench) error {
			interval = max(least, b.restful(n))
			return b.push(ctx, tiny, n, first)
		},
		run: func(ctx context.Context, l *lap) ([]*usage, error) {
			all := tiny.sources(n, first)
			for i := range all {
				all[i].interval = interval
			}
			published, err := l.work(ctx, all, l.create)
			if err != nil {
				return nil, err
			}
			l.pace = max(l.pace, time.Duration(published.Wall/float64(n)*float64(time.Second)))
			idle, err := l.idle(ctx, interval*3/2) // the second look comes after two
			return []*usage{published, idle}, err
		},
	}
}

// restful is an interval in which sources can be published in a third of it, by
// either contender, as far as they have shown.
func (b *bench) restful(sources int) time.Duration {
	const (
		unseen = 30 * time.Millisecond
		share  = 3
	)
	return share * time.Duration(sources) * cmp.Or(b.pace, unseen)
}

// run measures everything on one control plane. After a failure it returns what
// was measured before, too.
func run(ctx context.Context, o options, p program) (r *report, err error) {
	b, err := open(ctx, o)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, b.Stop()) }()
	if r, err = newReport(ctx, o); err != nil {
		return nil, err
	}
	defer func() {
		r.Budgets = budgets(r)
		if err == nil && o.explain {
			err = b.explain(ctx, p.scenarios, r.Budgets)
		}
	}()
	b.say("measuring on %s", r.Machine)
	if err := b.push(ctx, warm, o.concurrent, first); err != nil {
		return r, err
	}
	for _, s := range p.scenarios {
		if !o.selects(s.name) {
			continue
		}
		rows, err := b.course(ctx, s)
		if err != nil {
			return r, fmt.Errorf("%s: %w\nlogs: %s", s.name, err, b.LogDir())
		}
		r.Rows = append(r.Rows, rows...)
	}
	for _, l := range latencies(p.sizes) {
		if l.times == 0 || !o.selects(l.name) {
			continue
		}
		measured, err := b.delays(ctx, l)
		if err != nil {
			return r, fmt.Errorf("%s: %w\nlogs: %s", l.name, err, b.LogDir())
		}
		r.Latencies = append(r.Latencies, *measured)
	}
	r.Limits, err = b.limits(ctx, slices.DeleteFunc(shapes(), func(s shape) bool { return r.biggest(s.name) == nil }))
	return r, err
}

func (o options) selects(name string) bool { return o.only == nil || o.only.MatchString(name) }

func (b *bench) say(format string, args ...any) {
	fmt.Fprintf(os.Stderr, format+"\n", args...)
}

// course has all contenders run a scenario, in turn and in changing order.
func (b *bench) course(ctx context.Context, s scenario) ([]row, error) {
	b.say("%s: pushing", s.name)
	if s.prepare != nil {
		if err := s.prepare(ctx, b); err != nil {
			return nil, err
		}
	}
	rounds := b.options.rounds
	if s.once {
		rounds = 1
	}
	fields := contenders()
	took := make([][2][]*usage, len(s.phases)) // by phase, contender and round
	for round := range rounds {
		for i := range fields {
			which := (i + round + b.courses) % len(fields)
			if s.alone && which != 0 {
				continue
			}
			used, err := b.turn(ctx, s, fields[which], false)
			if err != nil {
				return nil, err
			}
			for p, u := range used {
				took[p][which] = append(took[p][which], u)
			}
		}
	}
	b.courses++
	rows := make([]row, 0, len(s.phases))
	for p, phase := range s.phases {
		rows = append(rows, newRow(s.name, phase, took[p]))
	}
	return rows, b.profile(ctx, s)
}

// turn has one contender run a scenario once.
func (b *bench) turn(ctx context.Context, s scenario, c contender, profiled bool) (_ []*usage, err error) {
	l, err := b.lap(ctx, c)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, l.finish(ctx)) }()
	if profiled {
		l.profiled = s.name
		l.record(ctx, cpuTime, working)
		defer l.recorded(ctx)
	}
	used, err := s.run(ctx, l)
	if err != nil {
		return nil, err
	}
	for p, u := range used {
		b.say("%s %s: %s: %.2f s, %.2f s of CPU, %d MiB above idle, %d requests, %d writes", s.name, s.phases[p].name, c, u.Wall, u.CPU, u.above()>>20, total(u.Requests), total(u.Writes))
	}
	return used, nil
}
