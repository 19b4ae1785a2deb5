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

// Package throttle limits requests to registries: it keeps a registry that does not answer,
// or asks for a pause, from occupying the workers, and shares the workers between
// namespaces.
package throttle

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/image-source/image-source-controller/api/v1alpha1"
	"github.com/image-source/image-source-controller/pkg/fault"
	"github.com/image-source/image-source-controller/pkg/flight"
	"github.com/image-source/image-source-controller/pkg/trust"
)

// Way is one way to a registry: its host, the CA and the proxy, and whether plain HTTP and a
// short timeout are allowed. A mistake of one tenant here closes no way of another.
type Way struct {
	// Host of the registry, with its port if one is named.
	Host string
	// Namespace of the settings below; empty if all are at their defaults.
	Namespace string
	// CertSecret and ProxySecret name the Secrets with a CA and a proxy.
	CertSecret, ProxySecret string
	// Insecure allows plain HTTP.
	Insecure bool
	// Hasty: the attempt waits for less than Patience. Its failure does not count for
	// others.
	Hasty bool
}

// Patience is the shortest timeout of an attempt whose failure counts for others.
const Patience = 10 * time.Second

// Request is an attempt to ask a registry.
type Request struct {
	// Namespace and Source of the attempt; it counts against the Namespace.
	Namespace, Source string
	Way               Way
	// Login identifies the credentials, for limits of the registry (HTTP Retry-After). It
	// must be comparable.
	Login any
	// Judges: the rules of the platform judge a published image. Each namespace has one
	// reserved place for such an attempt. If more judgements wait, other attempts of the
	// namespace give way: long pulls or slow judgements must not keep an image published
	// that the platform rejects.
	Judges bool
	// Insists: a user asked for the attempt. It may start regardless of the state of the
	// way, within the share of the namespace.
	Insists bool
}

// Busy is the error of an attempt that has to come again later, without a message for the
// user: other attempts are testing the registry, or the way or the namespace has used its
// share.
type Busy struct {
	// Wait is the time until then.
	Wait time.Duration
}

// Error implements error.
func (*Busy) Error() string { return "the registry is not asked now: other attempts use it" }

// probes is how many attempts at a time may find out whether a registry answers, while
// probes is the number of concurrent attempts that may test a way in an unknown state.
const probes = 2

// Throttle knows the registries that answer and the attempts that use them. An untested way
// gets only a few attempts. A tested way leaves some workers to the others, because it may
// stop working at any time. So does a namespace, which may have any number of ways, and more
// attempts than a way. A third namespace can always start, even if two others are busy.
//
// Its zero value limits only untested ways. It is safe for concurrent use.
type Throttle struct {
	// capacity limits the attempts of one way, share those of the sources of one namespace,
	// and workers all of them; 0 means no limit.
	capacity, share, workers int

	mu    sync.Mutex
	known map[Way]*state
	// busy counts the attempts of a namespace, without the one in judging.
	busy map[string]int
	// judging has the judgements in the reserved places of the namespaces.
	judging map[string]*Turn
	// turns are the running attempts.
	turns map[*Turn]struct{}
	// waiting has the judgements that were turned away, by namespace and source, and served
	// the time when a namespace last got its reserved place.
	waiting map[string]map[string]waiter
	served  map[string]time.Time
	// quiet has the end of the pause that a registry asked for, for each login: its limits
	// are those of a credential, not of a host.
	quiet map[login]time.Time
}

// login is a registry with the credentials for it.
type login struct {
	host  string
	login any
}

type state struct {
	busy int
	// asking counts, by namespace, the attempts since the way was last known to work: they
	// test the way.
	asking map[string]int
	// round counts how often the way became known to work. Each time clears asking.
	round int
	// tried and works are the result of the last attempt.
	tried, works bool
	// turned counts the postponed attempts since the way was last unused.
	turned int
}

// New divides the workers: a namespace leaves a quarter of them to the others and reserves
// one of its own for judgements; a way leaves an eighth to the other ways.
func New(workers int) *Throttle {
	share := max(probes, workers-max(1, workers/4))
	return &Throttle{workers: workers, share: share, capacity: max(probes, share-1-max(1, workers/8))}
}

// The time until a postponed attempt comes again grows with their number, so that a long
// queue does not keep the workers busy.
const (
	postponement    = 250 * time.Millisecond
	turn            = 2 * time.Millisecond
	maxPostponement = 30 * time.Second
)

// maxWays bounds the known ways. Above it, unused ways are forgotten.
const maxWays = 10_000

// waiter is a judgement that was turned away: the start of its wait, and its last attempt.
type waiter struct{ since, came time.Time }

// Turn is the use of a way by one attempt. It ends with Leave.
type Turn struct {
	throttle *Throttle
	request  Request
	began    time.Time
	reserved bool
	// asks: it is counted in asking, in a round of the way.
	asks    bool
	round   int
	giveWay context.CancelCauseFunc // nil: it never gives way
}

// undisturbed is the shortest time before an attempt gives way to a judgement.
const undisturbed = 5 * time.Second

// errGaveWay is the cause of the end of a context that gives way.
var errGaveWay = errors.New("it gives way to a judgement by the rules of the platform")

// Yielding returns a context that ends when the attempt has to give way to a judgement.
func (u *Turn) Yielding(ctx context.Context) (_ context.Context, end func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	u.throttle.mu.Lock()
	defer u.throttle.mu.Unlock()
	u.giveWay = cancel
	return ctx, func() { cancel(nil) }
}

// GaveWay returns the error of an attempt that Yielding ended in favour of a judgement; else
// nil.
func GaveWay(ctx context.Context) *Busy {
	if errors.Is(context.Cause(ctx), errGaveWay) {
		return &Busy{Wait: postponement}
	}
	return nil
}

// Enter starts the use of a way.
//
// Errors: *Busy; FetchFailed (retry) if the registry did not answer the last attempt and
// others are testing it (*Closed), or if it asked for a pause (*Quiet).
func (t *Throttle) Enter(r Request) (*Turn, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := t.state(r.Way)
	wait := t.silence(r)
	reserved := r.Judges && t.mayJudge(r.Namespace)
	doubtful := !s.works && t.crowded(s, r.Namespace, reserved)
	switch {
	case wait > 0 && !r.Insists:
		return nil, putOff(r.Way, wait)
	case doubtful && s.tried && !r.Insists:
		return nil, fault.Retryf(v1alpha1.ReasonFetchFailed, "%w", &Closed{Host: r.Way.Host})
	case doubtful && !r.Insists, !reserved && (t.spent(r.Namespace) || !r.Insists && full(s.busy, t.capacity)), r.Judges && !t.isNext(r):
		if r.Judges {
			t.wait(r)
			t.makeRoom(r.Namespace)
			return nil, &Busy{Wait: postponement}
		}
		return nil, &Busy{Wait: s.turn()}
	}
	s.busy++
	u := &Turn{throttle: t, request: r, began: time.Now(), reserved: reserved, asks: !s.works, round: s.round}
	if u.asks {
		s.asking[r.Namespace]++
	}
	t.turns[u] = struct{}{}
	if reserved {
		t.judging[r.Namespace], t.served[r.Namespace] = u, u.began
	} else {
		t.busy[r.Namespace]++
	}
	if r.Judges {
		delete(t.waiting[r.Namespace], r.Source)
	}
	return u, nil
}

// full reports whether a way or a namespace has used its limit.
func full(busy, most int) bool { return most > 0 && busy >= most }

// left is the number of idle workers.
func (t *Throttle) left() int { return t.workers - sum(t.busy) - len(t.judging) }

// fewWorkers is too few to reserve one for judgements and one for a namespace without
// attempts.
const fewWorkers = 4

// spent reports whether a namespace has used its share, beside a judgement. A namespace with
// attempts leaves one worker to judgements, and the last one to a namespace without
// attempts.
func (t *Throttle) spent(namespace string) bool {
	own, kept := t.busy[namespace], 2
	if t.workers < fewWorkers {
		kept = 1
	}
	return t.share > 0 && own >= t.share-1 || t.workers > 0 && (own > 0 || t.judging[namespace] != nil) && t.left() <= kept
}

// mayJudge reports whether a namespace may take its reserved place. A namespace with
// attempts leaves the last worker to a namespace without attempts, and the last but one to
// the waiting namespace that got its reserved place the longest time ago.
func (t *Throttle) mayJudge(namespace string) bool {
	switch {
	case t.judging[namespace] != nil:
		return false
	case t.workers < fewWorkers || t.busy[namespace] == 0 || t.left() > 2:
		return true
	case t.left() < 2:
		return false
	}
	for other := range t.waiting {
		if other != namespace && t.waits(other) && t.served[other].Before(t.served[namespace]) {
			return false
		}
	}
	return true
}

// wait notes a judgement that was turned away.
func (t *Throttle) wait(r Request) {
	if t.waiting[r.Namespace] == nil {
		t.waiting[r.Namespace] = map[string]waiter{}
	}
	w, now := t.waiting[r.Namespace][r.Source], time.Now()
	if w.since.IsZero() {
		w.since = now
	}
	w.came = now
	t.waiting[r.Namespace][r.Source] = w
}

// waits reports whether a judgement of a namespace waits. It forgets those that have not
// come again.
func (t *Throttle) waits(namespace string) bool {
	for source, w := range t.waiting[namespace] {
		if time.Since(w.came) > undisturbed {
			delete(t.waiting[namespace], source)
		}
	}
	if len(t.waiting[namespace]) == 0 {
		delete(t.waiting, namespace)
		return false
	}
	return true
}

// isNext reports whether no other judgement of the namespace has waited longer.
func (t *Throttle) isNext(r Request) bool {
	t.waits(r.Namespace)
	own, waited := t.waiting[r.Namespace][r.Source]
	for source, w := range t.waiting[r.Namespace] {
		if source != r.Source && (!waited || w.since.Before(own.since)) {
			return false
		}
	}
	return true
}

// makeRoom ends attempts in favour of a waiting judgement: those of its own namespace, and
// the judgements of others if these have all places.
func (t *Throttle) makeRoom(namespace string) {
	now := time.Now()
	for u := range t.turns {
		own := u.request.Namespace == namespace
		inTheWay := own || u.reserved && t.judging[namespace] == nil
		if inTheWay && u.giveWay != nil && now.Sub(u.began) > undisturbed {
			u.giveWay(errGaveWay)
		}
	}
	for other, at := range t.served { // only for the order of the waiting ones
		if now.Sub(at) > time.Hour {
			delete(t.served, other)
		}
	}
}

// turn counts a postponed attempt and returns the time until it may come again.
func (s *state) turn() time.Duration {
	s.turned++
	return min(postponement+time.Duration(s.turned)*turn, maxPostponement)
}

// prepare makes the zero value ready for use.
func (t *Throttle) prepare() {
	if t.known == nil {
		t.known, t.quiet = map[Way]*state{}, map[login]time.Time{}
		t.busy, t.judging, t.turns = map[string]int{}, map[string]*Turn{}, map[*Turn]struct{}{}
		t.waiting, t.served = map[string]map[string]waiter{}, map[string]time.Time{}
	}
}

// Occupy counts work without requests to a registry against the share of a namespace. The
// caller calls end after it; Busy means: the share is used up.
func (t *Throttle) Occupy(namespace string) (end func(), busy *Busy) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.prepare()
	if t.spent(namespace) {
		return nil, &Busy{Wait: postponement}
	}
	t.busy[namespace]++
	return func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		drop(t.busy, namespace)
	}, nil
}

// drop takes one attempt of a namespace out of a count.
func drop(busy map[string]int, namespace string) {
	if busy[namespace]--; busy[namespace] == 0 {
		delete(busy, namespace)
	}
}

// state returns the state of a way.
func (t *Throttle) state(way Way) *state {
	t.prepare()
	s, ok := t.known[way]
	if !ok {
		t.tidy()
		s = &state{asking: map[string]int{}}
		t.known[way] = s
	}
	return s
}

// silence returns the rest of the pause that a registry asked for. It forgets a pause that
// is over.
func (t *Throttle) silence(r Request) time.Duration {
	who := login{r.Way.Host, r.Login}
	until, ok := t.quiet[who]
	if !ok {
		return 0
	}
	wait := time.Until(until)
	if wait <= 0 {
		delete(t.quiet, who)
	}
	return wait
}

// crowded reports whether enough attempts test a way already, or all untested ways have half
// of the capacity of one way. So workers are left to the registries that answer, even if
// many hang. A namespace without such an attempt may start one while few namespaces test
// ways; the number of their attempts, which insisting raises, does not matter. A judgement
// in its reserved place waits only for the way.
func (t *Throttle) crowded(s *state, namespace string, reserved bool) bool {
	asking := map[string]int{}
	for _, known := range t.known {
		for of, attempts := range known.asking {
			asking[of] += attempts
		}
	}
	here := sum(s.asking)
	switch {
	case asking[namespace] == 0 || reserved:
		return here >= max(probes+1, t.capacity/2) || !reserved && t.share > 0 && len(asking) >= max(probes+1, t.share/2)
	default:
		return here >= probes || t.capacity > 0 && sum(asking) >= max(probes, t.capacity/2)
	}
}

func sum(counts map[string]int) (all int) {
	for _, count := range counts {
		all += count
	}
	return all
}

// Leave ends the turn. heard means: an answer came, of any kind; err is the reason of a
// failure.
func (u *Turn) Leave(heard bool, err error) {
	u.Learn(heard, err)
	t := u.throttle
	t.mu.Lock()
	defer t.mu.Unlock()
	namespace := u.request.Namespace
	s := t.known[u.request.Way]
	s.busy--
	s.turned = max(0, s.turned-1)
	if s.busy == 0 {
		s.turned = 0
	}
	if u.asks && u.round == s.round {
		drop(s.asking, namespace)
	}
	delete(t.turns, u)
	if u.reserved {
		delete(t.judging, namespace)
	} else {
		drop(t.busy, namespace)
	}
}

// Learn notes the result so far. Any answer of a registry, even a refusal, shows that the
// way works. An attempt that was given up shows nothing, nor does one without a request
// after the way was tested. Work for several callers may outlive the turn, and still be
// noted.
func (u *Turn) Learn(heard bool, err error) {
	if errors.Is(err, context.Canceled) {
		return
	}
	var wait time.Duration
	if failure := fault.Of(err, v1alpha1.ReasonFetchFailed); failure != nil {
		wait = failure.RetryAfter
	}
	works := wait > 0 || !unanswered(err)
	t := u.throttle
	t.mu.Lock()
	defer t.mu.Unlock()
	s := t.state(u.request.Way)
	if s.tried && works && !heard {
		return
	}
	s.tried, s.works = true, works
	if works {
		clear(s.asking)
		s.round++
	}
	if wait > 0 {
		t.tidy() // a deleted source never calls silence to forget its pause
		t.quiet[login{u.request.Way.Host, u.request.Login}] = time.Now().Add(wait)
	}
}

// unanswered reports whether an attempt failed because the registry did not answer: about
// the image, or about its signatures; the latter is a failure of a verification.
func unanswered(err error) bool {
	if denial, ok := errors.AsType[*trust.VerificationError](err); ok {
		return denial.Unanswered != nil
	}
	if _, panicked := errors.AsType[*flight.PanicError](err); panicked { // in shared work: a fault of this program
		return false
	}
	failure := fault.Of(err, v1alpha1.ReasonFetchFailed)
	return failure != nil && failure.Reason == v1alpha1.ReasonFetchFailed && !failure.Answered
}

// tidy forgets unused ways and past pauses if there are too many.
func (t *Throttle) tidy() {
	if len(t.known)+len(t.quiet) < maxWays {
		return
	}
	for way, s := range t.known {
		if s.busy == 0 {
			delete(t.known, way)
		}
	}
	for who, until := range t.quiet {
		if time.Now().After(until) {
			delete(t.quiet, who)
		}
	}
}

// Closed is the error of an attempt that was not made: the registry did not answer the last
// attempt, and others are testing it.
type Closed struct {
	// Host of the registry.
	Host string
}

// Error implements error.
func (c *Closed) Error() string {
	return fmt.Sprintf("the registry %s did not answer the last attempt; other attempts are testing it", c.Host)
}

// IsHeld reports whether an error means that the registry was not asked at all.
func IsHeld(err error) bool {
	_, busy := errors.AsType[*Busy](err)
	_, isClosed := errors.AsType[*Closed](err)
	_, quiet := errors.AsType[*Quiet](err)
	return busy || isClosed || quiet
}

// Quiet is the error of an attempt that was not made: the registry asked for a pause (HTTP
// Retry-After).
type Quiet struct {
	// Host of the registry.
	Host string
	// Wait is the rest of the pause.
	Wait time.Duration
}

// Error implements error.
func (q *Quiet) Error() string {
	return fmt.Sprintf("the registry %s asked for a pause (Retry-After)", q.Host)
}

// putOff returns the error of an attempt during a pause.
func putOff(way Way, wait time.Duration) error {
	return &fault.Error{Reason: v1alpha1.ReasonFetchFailed, Class: fault.Retry, RetryAfter: wait, Err: &Quiet{Host: way.Host, Wait: wait}}
}
