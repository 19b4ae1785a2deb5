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

// Package throttle holds back requests to registries: it keeps one that does not answer,
// or asks to be left alone, from occupying the workers, and shares the workers out
// between namespaces.
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

// Way is one way to a registry: its host, the CA and the proxy by which it is reached,
// and whether plain HTTP and little time will do. A mistake of one tenant there closes
// no way of another.
type Way struct {
	// Host of the registry, with its port if one is named.
	Host string
	// Namespace of the settings below; empty if all are at their defaults.
	Namespace string
	// CertSecret and ProxySecret name the Secrets that bring a CA and a proxy.
	CertSecret, ProxySecret string
	// Insecure allows plain HTTP.
	Insecure bool
	// Hasty tells that the attempt waits for less than Patience: its failure says
	// nothing about the registry to others.
	Hasty bool
}

// Patience is how long an attempt must be willing to wait for its failure to say
// something about the registry to others.
const Patience = 10 * time.Second

// Request is an attempt that wants to ask a registry.
type Request struct {
	// Namespace that the attempt counts against, and Source in it that makes the attempt.
	Namespace, Source string
	Way               Way
	// Login identifies the credentials, for limits that the registry sets for them
	// (HTTP Retry-After). It must be comparable.
	Login any
	// Judges tells that the rules of the platform judge a published image. One such
	// attempt of each namespace has a place of its own, and where more wait, the other
	// attempts of the namespace give way: pulls that take an hour, or many slow judgements,
	// must not keep an image published that the platform rejects.
	Judges bool
	// Insists tells that a person asked for the attempt. It is let in whatever is known
	// of the way, within the share of the namespace.
	Insists bool
}

// Busy is the error of an attempt that has to come again later, without anything to
// tell: others find out whether the registry answers, or the way or the namespace has as
// many attempts as it may.
type Busy struct {
	// Wait is when to come again.
	Wait time.Duration
}

// Error implements error.
func (*Busy) Error() string { return "the registry is not asked now: others ask it" }

// probes is how many attempts at a time may find out whether a registry answers, while
// that is not known.
const probes = 2

// Throttle knows which registries answer and who asks them. Until a way is known to
// work, only a few attempts use it, and a way that works leaves some workers to the
// others, because it may cease to at any time. So does a namespace, which may have any
// number of ways, and more attempts than a way may. A third namespace begins, however
// busy two others are.
//
// Its zero value sets no limits but those on ways that are not known to work. It is safe
// for concurrent use.
type Throttle struct {
	// capacity is how many attempts one way may have, share how many the sources of
	// one namespace may have, and workers how many there may be in all; 0 is any number.
	capacity, share, workers int

	mu    sync.Mutex
	known map[Way]*state
	// busy is how many attempts a namespace has, if any, but for the one in judging.
	busy map[string]int
	// judging has the judgements in the places that namespaces have for one.
	judging map[string]*Turn
	// turns are all that are under way.
	turns map[*Turn]struct{}
	// waiting are the judgements that were turned away, by namespace and source, and served
	// is when one of a namespace got its place last.
	waiting map[string]map[string]waiter
	served  map[string]time.Time
	// quiet is until when a registry does not want to be asked with a login. Its limits
	// are those of a credential, not of a host.
	quiet map[login]time.Time
}

// login is a registry and what opens it.
type login struct {
	host  string
	login any
}

type state struct {
	busy int
	// asking has, by namespace, the attempts that began since the way was last known to
	// work: those that find out whether it does.
	asking map[string]int
	// round counts how often the way became known to work, which clears asking.
	round int
	// tried and works tell what the last attempt that ended found out.
	tried, works bool
	// turned counts the attempts that were told to come later since the way was last unused.
	turned int
}

// New shares workers out: a namespace leaves a quarter of them to the others. One of its
// own is for judgements, and a way leaves an eighth to the other ways.
func New(workers int) *Throttle {
	share := max(probes, workers-max(1, workers/4))
	return &Throttle{workers: workers, share: share, capacity: max(probes, share-1-max(1, workers/8))}
}

// How long an attempt is postponed: the more there are, the longer, so that a long line
// of them does not keep the workers busy with turning it away.
const (
	postponement    = 250 * time.Millisecond
	turn            = 2 * time.Millisecond
	maxPostponement = 30 * time.Second
)

// maxWays bounds what is remembered. Over it, unused ways are forgotten.
const maxWays = 10_000

// waiter is a judgement that was turned away: since when it waits, and when it came last.
type waiter struct{ since, came time.Time }

// Turn is the use of a way by one attempt. It ends with Leave.
type Turn struct {
	throttle *Throttle
	request  Request
	began    time.Time
	reserved bool
	// asks tells that it is counted in asking, in a round of the way.
	asks    bool
	round   int
	giveWay context.CancelCauseFunc // nil: it does not
}

// undisturbed is how long an attempt lasts at least before it gives way to a judgement.
const undisturbed = 5 * time.Second

// errGaveWay is why the context of a turn ends that gives way.
var errGaveWay = errors.New("it gives way to a judgement by the rules of the platform")

// Yielding returns a context that ends when the attempt has to give way to a judgement.
func (u *Turn) Yielding(ctx context.Context) (_ context.Context, end func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	u.throttle.mu.Lock()
	defer u.throttle.mu.Unlock()
	u.giveWay = cancel
	return ctx, func() { cancel(nil) }
}

// GaveWay returns the error of an attempt whose context Yielding has ended to let a
// judgement go first; nil for all others.
func GaveWay(ctx context.Context) *Busy {
	if errors.Is(context.Cause(ctx), errGaveWay) {
		return &Busy{Wait: postponement}
	}
	return nil
}

// Enter asks to use a way.
//
// Errors: *Busy; FetchFailed (retry) where the registry did not answer of late and others
// try it already (*Closed), or has said when it wants to be asked again (*Quiet).
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
		return nil, closed(r.Way)
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

// full tells whether a way or a namespace has as many attempts as it may.
func full(busy, most int) bool { return most > 0 && busy >= most }

// left is how many workers are not taken.
func (t *Throttle) left() int { return t.workers - sum(t.busy) - len(t.judging) }

// fewWorkers are too few to keep one for judgements and one for a namespace without attempts.
const fewWorkers = 4

// spent tells whether a namespace has as many attempts as it may, beside a judgement. One
// that has any leaves a worker to judgements, and the last one to a namespace without one.
func (t *Throttle) spent(namespace string) bool {
	own, kept := t.busy[namespace], 2
	if t.workers < fewWorkers {
		kept = 1
	}
	return t.share > 0 && own >= t.share-1 || t.workers > 0 && (own > 0 || t.judging[namespace] != nil) && t.left() <= kept
}

// mayJudge tells whether a namespace may take its place for a judgement. One with attempts
// leaves the last worker to a namespace without one, and the last but one to the
// namespace whose judgements have waited for longest.
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

// wait notes that a judgement was turned away.
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

// waits tells whether a judgement of a namespace waits. It forgets those that have not come
// again.
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

// isNext tells whether no other judgement of the namespace has waited for longer.
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

// makeRoom has attempts end that a judgement of a namespace waits for: those of its own,
// and the judgements of others where these have all places.
func (t *Throttle) makeRoom(namespace string) {
	now := time.Now()
	for u := range t.turns {
		own := u.request.Namespace == namespace
		inTheWay := own || u.reserved && t.judging[namespace] == nil
		if inTheWay && u.giveWay != nil && now.Sub(u.began) > undisturbed {
			u.giveWay(errGaveWay)
		}
	}
	for other, at := range t.served { // it only orders those that wait
		if now.Sub(at) > time.Hour {
			delete(t.served, other)
		}
	}
}

// turn notes that an attempt is told to come later, and returns when.
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

// Occupy counts work that asks no registry against the share of a namespace. The caller
// calls end after it; Busy says that the share is used up.
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

// state returns what is known of a way.
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

// silence returns how long a registry does not want to be asked with a login. A wait
// that is over is forgotten.
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

// crowded tells whether enough attempts find out whether a way works, or others do: half
// of what one way may have is in such ways. However many registries hang, workers are
// left to those that answer. A namespace without such an attempt may begin one while few
// namespaces have any: how many these have, which insisting makes more, does not matter.
// A judgement in its reserved place waits for the way alone.
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

// Leave ends the turn. heard tells that an answer came, whatever it was; err is why the
// attempt failed.
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

// Learn notes what was found out about the way so far. Any answer of a registry, a
// refusal too, shows that the way works; an attempt that was given up shows nothing, and
// neither does one that needed no answer where another has asked before. Work that others
// wait for may outlive the turn, and still be noted.
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
		t.tidy() // a source that is gone does not come back to have its wait forgotten
		t.quiet[login{u.request.Way.Host, u.request.Login}] = time.Now().Add(wait)
	}
}

// unanswered tells whether an attempt failed because the registry did not answer: to the
// questions about the image, or to those about its signatures, where the failure as such
// is that of a verification.
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

// tidy forgets unused ways and waits that are over, when there are too many.
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

// Closed is the error of an attempt that was not made because the registry did not answer
// the last one, and others try it already.
type Closed struct {
	// Host of the registry.
	Host string
}

// Error implements error.
func (c *Closed) Error() string {
	return fmt.Sprintf("the registry %s did not answer the last attempt; others are trying it already", c.Host)
}

// closed says why an attempt was not made.
func closed(way Way) error {
	return &fault.Error{Reason: v1alpha1.ReasonFetchFailed, Class: fault.Retry, Err: &Closed{Host: way.Host}}
}

// IsHeld tells whether an error says that the registry was not asked at all.
func IsHeld(err error) bool {
	_, busy := errors.AsType[*Busy](err)
	_, isClosed := errors.AsType[*Closed](err)
	_, quiet := errors.AsType[*Quiet](err)
	return busy || isClosed || quiet
}

// Quiet is the error of an attempt that was not made because the registry has said when it
// wants to be asked again (HTTP Retry-After).
type Quiet struct {
	// Host of the registry.
	Host string
	// Wait is how long it is until then.
	Wait time.Duration
}

// Error implements error.
func (q *Quiet) Error() string {
	return fmt.Sprintf("the registry %s answered that it wants to be asked later (Retry-After)", q.Host)
}

// putOff says why an attempt was not made.
func putOff(way Way, wait time.Duration) error {
	return &fault.Error{Reason: v1alpha1.ReasonFetchFailed, Class: fault.Retry, RetryAfter: wait, Err: &Quiet{Host: way.Host, Wait: wait}}
}
