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
	"net/http/httptrace"
	"sync"
	"sync/atomic"
	"time"

	"github.com/image-source/image-source-controller/api/v1alpha1"
	"github.com/image-source/image-source-controller/pkg/bridge"
	"github.com/image-source/image-source-controller/pkg/credentials"
	"github.com/image-source/image-source-controller/pkg/fault"
	"github.com/image-source/image-source-controller/pkg/registry"
	"github.com/image-source/image-source-controller/pkg/trust"
)

// probes is how many attempts at a time may find out whether a registry
// answers, while that is not known.
const probes = 2

// lane is one way to a registry: its host, the CA and the proxy by which it is
// reached, and whether plain HTTP and little time will do. What one tenant gets
// wrong there closes no lane of another.
type lane struct {
	host, namespace, cert, proxy string
	insecure, hasty              bool
}

// patience is how long an attempt must be willing to wait for its failure to
// say something about the registry to others.
const patience = 10 * time.Second

func (p Plan) lane() lane {
	l := lane{
		host: p.Repository.RegistryStr(), cert: p.Access.CertSecretName, proxy: p.Access.ProxySecretName,
		insecure: p.Access.Insecure, hasty: p.Timeout < patience,
	}
	if l.cert != "" || l.proxy != "" || l.insecure || l.hasty {
		l.namespace = p.Access.Namespace
	}
	return l
}

// lanes keep a registry that does not answer from occupying all workers: until
// a lane is known to work, only a few attempts are in it, and a lane that works
// leaves some workers to the others, because it may cease to at any time. So does
// a namespace, which may have any number of lanes, and more attempts than a lane may.
// A third namespace begins, however busy two others are.
type lanes struct {
	// capacity is how many attempts may be in one lane, share how many the sources
	// of one namespace may have, and workers how many there may be in all; 0 is any number.
	capacity, share, workers int

	mu    sync.Mutex
	known map[lane]*laneState
	// busy is how many attempts the sources of a namespace have, if any.
	busy map[string]int
	// judging are the namespaces whose place for a judgement by the platform is taken.
	// It is one of their share that waits for nothing else: a namespace that pulls for an hour
	// must not keep an image published that the platform rejects.
	judging map[string]bool
	// quiet is until when a registry does not want to be asked with an access
	// (HTTP Retry-After). Its limits are those of a credential, not of a host.
	quiet map[access]time.Time
}

// access is a registry and what opens it.
type access struct {
	host       string
	references credentials.References
}

func (p Plan) access() access {
	return access{host: p.Repository.RegistryStr(), references: p.Access}
}

type laneState struct {
	busy int
	// asking has, by namespace, the attempts that began since the lane was last
	// known to work: those that find out whether it does.
	asking map[string]int
	// tried and works tell what the last attempt that ended found out.
	tried, works bool
	// turned counts who was told to come later since the lane was last empty.
	turned int
}

// divide shares workers out: a namespace leaves a quarter of them to the others. One of
// its own is for judgements, and a lane leaves an eighth to the other lanes.
func (l *lanes) divide(workers int) {
	l.workers = workers
	l.share = max(probes, workers-max(1, workers/4))
	l.capacity = max(probes, l.share-1-max(1, workers/8))
}

// admission is the answer to an attempt that wants to enter a lane.
type admission int

const (
	// admitted: go on, and call leave.
	admitted admission = iota
	// later: others are finding out whether the registry answers, or it, or the
	// namespace, is busy with as many as it may.
	later
	// closed: the registry did not answer of late, and others try it already.
	closed
	// putOff: the registry said when it wants to be asked again.
	putOff
)

// How long an attempt is postponed that comes later: the more there are, the
// longer, so that a long line of them does not keep the workers busy with
// turning it away.
const (
	postponement    = 250 * time.Millisecond
	turn            = 2 * time.Millisecond
	maxPostponement = 30 * time.Second
)

// maxLanes bounds what is remembered. Over it, idle lanes are forgotten.
const maxLanes = 10_000

// enter asks to use the lane of a plan. Who insists, because a person asked for
// it, is let in whatever is known of the lane, within the share of the namespace;
// who is not, is told how long to wait, where that is known.
func (l *lanes) enter(plan Plan, insist bool) (admission, time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	state := l.state(plan.lane())
	wait := l.silence(plan.access())
	reserved := plan.Judges && !l.judging[plan.Namespace]
	doubtful := !state.works && l.crowded(state, plan.Namespace, reserved)
	switch {
	case wait > 0 && !insist:
		return putOff, wait
	case doubtful && state.tried && !insist:
		return closed, 0
	case doubtful && !insist, !reserved && (l.spent(plan.Namespace) || !insist && full(state.busy, l.capacity)):
		return later, state.turn()
	}
	state.busy++
	if !state.works {
		state.asking[plan.Namespace]++
	}
	if reserved {
		l.judging[plan.Namespace] = true
	} else {
		l.busy[plan.Namespace]++
	}
	return admitted, 0
}

// full tells whether a lane or a namespace has as many attempts as it may.
func full(busy, most int) bool { return most > 0 && busy >= most }

// spent tells whether a namespace has as many attempts as it may, beside a judgement.
// One that has any leaves the last worker to those without one.
func (l *lanes) spent(namespace string) bool {
	own := l.busy[namespace]
	return l.share > 0 && own >= l.share-1 || l.workers > 0 && own > 0 && sum(l.busy)+len(l.judging) >= l.workers-1
}

// turn notes that somebody is told to come later, and says when.
func (s *laneState) turn() time.Duration {
	s.turned++
	return min(postponement+time.Duration(s.turned)*turn, maxPostponement)
}

// prepare makes the zero value ready for use.
func (l *lanes) prepare() {
	if l.known == nil {
		l.known, l.quiet = map[lane]*laneState{}, map[access]time.Time{}
		l.busy, l.judging = map[string]int{}, map[string]bool{}
	}
}

// occupy counts work that asks no registry against the share of a namespace. It
// returns the end of the work, or how long to wait where the share is used up.
func (l *lanes) occupy(namespace string) (end func(), wait time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.prepare()
	if l.spent(namespace) {
		return nil, postponement
	}
	l.busy[namespace]++
	return func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		drop(l.busy, namespace)
	}, 0
}

// drop takes one attempt of a namespace out of a count.
func drop(busy map[string]int, namespace string) {
	if busy[namespace]--; busy[namespace] == 0 {
		delete(busy, namespace)
	}
}

// state returns what is known of a lane.
func (l *lanes) state(way lane) *laneState {
	l.prepare()
	state, ok := l.known[way]
	if !ok {
		l.tidy()
		state = &laneState{asking: map[string]int{}}
		l.known[way] = state
	}
	return state
}

// silence returns how long a registry wants not to be asked with an access. A
// wait that is over is forgotten.
func (l *lanes) silence(who access) time.Duration {
	until, ok := l.quiet[who]
	if !ok {
		return 0
	}
	wait := time.Until(until)
	if wait <= 0 {
		delete(l.quiet, who)
	}
	return wait
}

// crowded tells whether enough attempts find out whether a lane works, or others
// do: half of what one lane may have is in such lanes. However many registries hang,
// workers are left to those that answer. A namespace without such an attempt may begin
// one while few namespaces have any: how many these have, which insisting makes more,
// does not matter. A judgement in its reserved place waits for the lane alone.
func (l *lanes) crowded(way *laneState, namespace string, reserved bool) bool {
	asking := map[string]int{}
	for _, state := range l.known {
		for of, attempts := range state.asking {
			asking[of] += attempts
		}
	}
	here := sum(way.asking)
	switch {
	case asking[namespace] == 0 || reserved:
		return here >= max(probes+1, l.capacity/2) || !reserved && l.share > 0 && len(asking) >= max(probes+1, l.share/2)
	default:
		return here >= probes || l.capacity > 0 && sum(asking) >= max(probes, l.capacity/2)
	}
}

func sum(counts map[string]int) (all int) {
	for _, count := range counts {
		all += count
	}
	return all
}

// finding is what an attempt found out about the registry.
type finding struct {
	// heard tells that an answer came, whatever it was.
	heard bool
	// err is why the attempt failed.
	err error
}

// leave ends the use of a lane.
func (l *lanes) leave(plan Plan, f finding) {
	l.learn(plan, f)
	l.mu.Lock()
	defer l.mu.Unlock()
	state := l.known[plan.lane()]
	state.busy--
	state.turned = max(0, state.turned-1)
	if state.busy == 0 {
		state.turned = 0
	}
	if state.asking[plan.Namespace]--; state.asking[plan.Namespace] <= 0 {
		delete(state.asking, plan.Namespace)
	}
	if plan.Judges && l.judging[plan.Namespace] {
		delete(l.judging, plan.Namespace) // of several judgements, it does not matter whose place it was
	} else {
		drop(l.busy, plan.Namespace)
	}
}

// learn notes what was found out about a lane that somebody is in. Any answer
// of a registry, a refusal too, shows that the lane works; an attempt that was
// given up shows nothing, and neither does one that needed no answer where
// somebody has asked before.
func (l *lanes) learn(plan Plan, f finding) {
	if errors.Is(f.err, context.Canceled) {
		return
	}
	var wait time.Duration
	if failure := fault.Of(f.err, v1alpha1.ReasonFetchFailed); failure != nil {
		wait = failure.RetryAfter
	}
	works := wait > 0 || !unanswered(f.err)
	l.mu.Lock()
	defer l.mu.Unlock()
	state := l.state(plan.lane()) // work that others wait for may outlive its attempt
	if state.tried && works && !f.heard {
		return
	}
	state.tried, state.works = true, works
	if works {
		clear(state.asking)
	}
	if wait > 0 {
		l.tidy() // whoever is gone does not come back to have its wait forgotten
		l.quiet[plan.access()] = time.Now().Add(wait)
	}
}

// unanswered tells whether an attempt failed because the registry did not
// answer: to the questions about the image, or to those about its signatures,
// where the failure as such is that of a verification.
func unanswered(err error) bool {
	if denial, ok := errors.AsType[*trust.Denial](err); ok {
		return denial.Unanswered != nil
	}
	failure := fault.Of(err, v1alpha1.ReasonFetchFailed)
	return failure != nil && failure.Reason == v1alpha1.ReasonFetchFailed && !failure.Answered
}

// listen returns a context whose requests are noted in heard once they get an
// answer. What is known without a request, or by that of another attempt, is none.
func listen(ctx context.Context) (_ context.Context, heard *atomic.Bool) {
	heard = &atomic.Bool{}
	return httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotFirstResponseByte: func() { heard.Store(true) }}), heard
}

// watched is a repository whose first answer tells that its lane works, long
// before a large artifact is pulled.
type watched struct {
	bridge.Repository
	learn func(finding)
}

// Resolve implements bridge.Repository.
func (w watched) Resolve(ctx context.Context, q registry.Query) (*registry.Manifest, error) {
	ctx, heard := listen(ctx)
	manifest, err := w.Repository.Resolve(ctx, q)
	w.learn(finding{heard: heard.Load(), err: err})
	return manifest, err
}

// tidy forgets lanes that nobody is in and waits that are over, when there are
// too many.
func (l *lanes) tidy() {
	if len(l.known)+len(l.quiet) < maxLanes {
		return
	}
	for way, state := range l.known {
		if state.busy == 0 {
			delete(l.known, way)
		}
	}
	for who, until := range l.quiet {
		if time.Now().After(until) {
			delete(l.quiet, who)
		}
	}
}

// closedLane says why an attempt was not made.
func closedLane(way lane) error {
	return fault.Retryf(v1alpha1.ReasonFetchFailed, "the registry %s did not answer the last attempt; others are trying it already", way.host)
}

// putOffLane says why an attempt was not made.
func putOffLane(way lane, wait time.Duration) error {
	return &fault.Error{
		Reason: v1alpha1.ReasonFetchFailed, Class: fault.Retry, RetryAfter: wait,
		Err: fmt.Errorf("the registry %s answered that it wants to be asked later (Retry-After)", way.host),
	}
}
