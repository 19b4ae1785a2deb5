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

package throttle

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/image-source/image-source-controller/api/v1alpha1"
	"github.com/image-source/image-source-controller/pkg/fault"
	"github.com/image-source/image-source-controller/pkg/trust"
)

// admission is the answer to an attempt.
type admission int

const (
	admitted admission = iota
	later
	isClosed
	isQuiet
)

// settings are the settings of a source for its way to a registry.
type settings struct {
	Namespace, Login string
	CertSecret       string
	ProxySecret      string
	Insecure         bool
}

func requestFor(host string, from settings) Request {
	way := Way{Host: host, CertSecret: from.CertSecret, ProxySecret: from.ProxySecret, Insecure: from.Insecure}
	if way != (Way{Host: host}) {
		way.Namespace = from.Namespace
	}
	return Request{Namespace: from.Namespace, Way: way, Login: from}
}

func enter(l *Throttle, r Request, insist bool) (*Turn, admission, time.Duration) {
	r.Insists = insist
	turn, err := l.Enter(r)
	var busy *Busy
	var quiet *Quiet
	switch {
	case err == nil:
		return turn, admitted, 0
	case errors.As(err, &busy):
		return nil, later, busy.Wait
	case errors.As(err, &quiet):
		return nil, isQuiet, quiet.Wait
	default:
		return nil, isClosed, 0
	}
}

func expectAdmission(t *testing.T, l *Throttle, r Request, want admission) time.Duration {
	t.Helper()
	_, got, wait := enter(l, r, false)
	if got != want {
		t.Fatalf("admission %d, want %d", got, want)
	}
	return wait
}

// learn notes a finding about a way in use.
func (t *Throttle) learn(r Request, f finding) {
	(&Turn{throttle: t, request: r}).Learn(f.heard, f.err)
}

// leave ends a turn of a request.
func (t *Throttle) leave(r Request, f finding) {
	for u := range t.turns {
		if u.request.Namespace == r.Namespace && u.request.Way == r.Way && u.request.Judges == r.Judges {
			u.Leave(f.heard, f.err)
			return
		}
	}
}

type finding struct {
	heard bool
	err   error
}

func TestThrottle(t *testing.T) {
	down := fault.Retryf(v1alpha1.ReasonFetchFailed, "no answer")
	app := requestFor("one.example", settings{Namespace: "a", Login: "login"})
	other := requestFor("two.example", settings{Namespace: "a"})

	t.Run("until a registry has answered only a few attempts find out whether it does", func(t *testing.T) {
		l := &Throttle{capacity: 8}
		expectAdmission(t, l, app, admitted)
		expectAdmission(t, l, app, admitted)
		expectAdmission(t, l, app, later)
		expectAdmission(t, l, other, admitted)
	})
	t.Run("the first answer opens the way up to its capacity, and the rest come later and later", func(t *testing.T) {
		l := &Throttle{capacity: 3}
		expectAdmission(t, l, app, admitted)
		l.learn(app, finding{heard: true, err: fault.Retryf(v1alpha1.ReasonAuthenticationFailed, "wrong password")})
		expectAdmission(t, l, app, admitted)
		expectAdmission(t, l, app, admitted)
		first := expectAdmission(t, l, app, later)
		second := expectAdmission(t, l, app, later)
		if first <= 0 || second <= first {
			t.Errorf("told to wait %s and then %s", first, second)
		}
		l.leave(app, finding{heard: true})
		expectAdmission(t, l, app, admitted)
	})
	t.Run("a registry that did not answer is tried by a few, and the others are told", func(t *testing.T) {
		l := &Throttle{capacity: 7}
		expectAdmission(t, l, app, admitted)
		l.leave(app, finding{heard: true, err: down})
		expectAdmission(t, l, app, admitted)
		expectAdmission(t, l, app, admitted)
		expectAdmission(t, l, app, isClosed)
		if _, got, _ := enter(l, app, true); got != admitted {
			t.Error("an insisting attempt is not let in")
		}
		l.leave(app, finding{heard: true})
		expectAdmission(t, l, app, admitted)
	})
	t.Run("a registry that answers with an error works", func(t *testing.T) {
		l := &Throttle{capacity: 7}
		limited := &fault.Error{Reason: v1alpha1.ReasonFetchFailed, Class: fault.Retry, Answered: true, Err: errors.New("429")}
		expectAdmission(t, l, app, admitted)
		l.leave(app, finding{heard: true, err: fmt.Errorf("in an attempt: %w", limited)})
		for range probes + 1 {
			expectAdmission(t, l, app, admitted)
		}
	})
	t.Run("however many registries hang, they leave workers to those that answer", func(t *testing.T) {
		l := &Throttle{capacity: 8}
		for _, host := range []string{"a", "b", "c", "d", "e"} {
			for _, namespace := range []string{"a", "b"} {
				enter(l, requestFor(host+".example", settings{Namespace: namespace}), false)
			}
		}
		busy := 0
		for _, state := range l.known {
			busy += state.busy
		}
		if busy != 4 {
			t.Errorf("%d attempts are in untested ways", busy)
		}
	})
	t.Run("a namespace with hanging registries keeps no other from testing another one", func(t *testing.T) {
		l := New(10)
		for _, host := range []string{"a", "b", "c", "d", "e"} {
			for range probes {
				enter(l, requestFor(host+".example", settings{Namespace: "a"}), false)
			}
		}
		expectAdmission(t, l, requestFor("one.example", settings{Namespace: "a"}), later)
		neighbour := requestFor("one.example", settings{Namespace: "b"})
		expectAdmission(t, l, neighbour, admitted)
		expectAdmission(t, l, neighbour, later)
	})
	t.Run("a namespace that is long at a registry that answers, and says once that it does not, keeps no other from it", func(t *testing.T) {
		l := New(10)
		for range 3 {
			expectAdmission(t, l, app, admitted)
			l.learn(app, finding{heard: true})
		}
		l.leave(app, finding{heard: true, err: down})
		for range probes {
			expectAdmission(t, l, app, admitted)
		}
		expectAdmission(t, l, app, isClosed)
		neighbour := requestFor("one.example", settings{Namespace: "b"})
		expectAdmission(t, l, neighbour, admitted)
		expectAdmission(t, l, neighbour, isClosed)
		l.learn(neighbour, finding{heard: true})
		expectAdmission(t, l, neighbour, admitted)
	})
	t.Run("however many registries of a namespace hang, another namespace may test a new one", func(t *testing.T) {
		for _, insist := range []bool{false, true} {
			l := New(10)
			for i := range 10 {
				enter(l, requestFor(fmt.Sprintf("hangs-%d.example", i), settings{Namespace: "a"}), insist)
			}
			expectAdmission(t, l, requestFor("fresh.example", settings{Namespace: "a"}), later)
			expectAdmission(t, l, requestFor("fresh.example", settings{Namespace: "b"}), admitted)
		}
	})
	t.Run("however many registries of two namespaces hang, a third namespace may test a new one", func(t *testing.T) {
		l := New(10)
		admittedOfTwo := 0
		for _, namespace := range []string{"a", "b"} {
			for i := range 10 {
				hangs := requestFor(fmt.Sprintf("hangs-%s-%d.example", namespace, i), settings{Namespace: namespace})
				if _, got, _ := enter(l, hangs, true); got == admitted {
					admittedOfTwo++
				}
			}
		}
		if admittedOfTwo > 9 {
			t.Errorf("two namespaces have %d attempts, and there are 10 workers", admittedOfTwo)
		}
		expectAdmission(t, l, requestFor("fresh.example", settings{Namespace: "c"}), admitted)
	})
	t.Run("however many attempts two namespaces have, a third one may begin", func(t *testing.T) {
		l := New(10)
		for _, namespace := range []string{"a", "b"} {
			for i := range 10 {
				slow := requestFor(fmt.Sprintf("slow-%d.example", i), settings{Namespace: namespace})
				l.learn(slow, finding{heard: true})
				enter(l, slow, true)
			}
		}
		if _, busy := l.Occupy("b"); busy == nil {
			t.Error("work that asks no registry takes the last worker")
		}
		if end, busy := l.Occupy("c"); busy != nil {
			t.Error("a namespace without attempts may not start")
		} else {
			end()
		}
		third := requestFor("one.example", settings{Namespace: "c"})
		l.learn(third, finding{heard: true})
		expectAdmission(t, l, third, admitted)
	})
	t.Run("however many attempts a namespace has, the platform judges its artifacts", func(t *testing.T) {
		l := New(10)
		for i := range 10 {
			slow := requestFor(fmt.Sprintf("slow-%d.example", i), settings{Namespace: "a"})
			l.learn(slow, finding{heard: true})
			enter(l, slow, i%2 == 0)
		}
		if _, busy := l.Occupy("a"); busy == nil {
			t.Error("more work is let in")
		}
		judgement := app
		judgement.Judges = true
		expectAdmission(t, l, judgement, admitted)
		expectAdmission(t, l, judgement, later)
		l.leave(judgement, finding{heard: true})
		expectAdmission(t, l, judgement, admitted)
	})
	t.Run("however many ways a namespace has, it leaves workers to the others", func(t *testing.T) {
		l := &Throttle{capacity: 3, share: 4}
		work := func(from settings) Request {
			request := requestFor("one.example", from)
			l.learn(request, finding{heard: true})
			return request
		}
		plain, insecure := work(settings{Namespace: "a"}), work(settings{Namespace: "a", Insecure: true})
		proxied := work(settings{Namespace: "a", ProxySecret: "proxy"})
		expectAdmission(t, l, plain, admitted)
		expectAdmission(t, l, plain, admitted)
		expectAdmission(t, l, insecure, admitted)
		first := expectAdmission(t, l, proxied, later)
		if second := expectAdmission(t, l, proxied, later); first <= 0 || second <= first {
			t.Errorf("told to wait %s and then %s", first, second)
		}
		if _, got, _ := enter(l, proxied, true); got != later {
			t.Error("an insisting attempt gets more than the share of the namespace")
		}
		expectAdmission(t, l, work(settings{Namespace: "b"}), admitted)
		l.leave(insecure, finding{heard: true})
		expectAdmission(t, l, proxied, admitted)
		l.leave(proxied, finding{heard: true})
		l.leave(plain, finding{heard: true})
		l.leave(plain, finding{heard: true})
		if len(l.busy) != 1 {
			t.Errorf("%d namespaces are remembered, of which one has an attempt", len(l.busy))
		}
	})
	t.Run("two namespaces with pulls and judgements leave a worker to a third one", func(t *testing.T) {
		for _, workers := range []int{fewWorkers, 10} {
			l, count := New(workers), 0
			for i := range 3 * workers {
				for _, namespace := range []string{"a", "b"} {
					slow := requestFor(fmt.Sprintf("slow-%d.example", i), settings{Namespace: namespace})
					l.learn(slow, finding{heard: true})
					for _, judges := range []bool{false, true} {
						slow.Judges = judges
						if _, got, _ := enter(l, slow, true); got == admitted {
							count++
						}
					}
				}
			}
			if count > workers-1 {
				t.Errorf("two namespaces have %d of %d workers", count, workers)
			}
			third := requestFor("one.example", settings{Namespace: "c"})
			third.Judges = true
			expectAdmission(t, l, third, admitted)
		}
	})
	t.Run("the namespace with the longest waiting judgement is next", func(t *testing.T) {
		l := New(10)
		judgement := func(namespace string) Request {
			r := requestFor("one.example", settings{Namespace: namespace})
			r.Judges = true
			l.learn(r, finding{heard: true})
			return r
		}
		for i := range 8 {
			namespace := []string{"a", "b"}[i%2]
			pull := requestFor(fmt.Sprintf("slow-%d.example", i), settings{Namespace: namespace})
			l.learn(pull, finding{heard: true})
			expectAdmission(t, l, pull, admitted)
		}
		first, _, _ := enter(l, judgement("a"), false)
		expectAdmission(t, l, judgement("b"), later)
		first.Leave(true, nil)
		expectAdmission(t, l, judgement("a"), later)
		expectAdmission(t, l, judgement("b"), admitted)
	})
	t.Run("judgements of a namespace come in the order in which they began to wait", func(t *testing.T) {
		l := New(10)
		judgement := func(source string) Request {
			r := requestFor("one.example", settings{Namespace: "a"})
			r.Judges, r.Source = true, source
			l.learn(r, finding{heard: true})
			return r
		}
		var taken []*Turn
		for i := range 10 {
			if turn, got, _ := enter(l, judgement(fmt.Sprint("slow-", i)), false); got == admitted {
				taken = append(taken, turn)
			}
		}
		expectAdmission(t, l, judgement("app"), later)
		for i := range 10 {
			taken[0].Leave(true, nil)
			taken = taken[1:]
			expectAdmission(t, l, judgement("new"), later)
			turn, got, _ := enter(l, judgement(fmt.Sprint("slow-", i+len(taken)+1)), false)
			if got != admitted {
				if i+len(taken)+1 < 10 {
					t.Fatalf("slow-%d is not admitted in its turn", i+len(taken)+1)
				}
				break
			}
			taken = append(taken, turn)
		}
		expectAdmission(t, l, judgement("app"), admitted)
	})
	t.Run("a long attempt gives way to a judgement of its namespace", func(t *testing.T) {
		l := New(10)
		yielding := func(namespace string, judges bool) (*Turn, context.Context) {
			r := requestFor("slow.example", settings{Namespace: namespace})
			r.Judges = judges
			l.learn(r, finding{heard: true})
			turn, got, _ := enter(l, r, false)
			if got != admitted {
				t.Fatalf("admission %d", got)
			}
			ctx, end := turn.Yielding(t.Context())
			t.Cleanup(end)
			return turn, ctx
		}
		slow, pull := yielding("a", true)
		old, judged := yielding("a", false)
		_, other := yielding("b", false)
		_, young := yielding("a", false)
		for _, turn := range []*Turn{slow, old} {
			turn.began = turn.began.Add(-2 * undisturbed)
		}
		for range 10 {
			waits := requestFor("one.example", settings{Namespace: "a"})
			waits.Judges = true
			l.learn(waits, finding{heard: true})
			enter(l, waits, false)
		}
		for _, ended := range []context.Context{pull, judged} {
			if GaveWay(ended) == nil {
				t.Error("an attempt that lasts does not give way")
			}
		}
		for _, goesOn := range []context.Context{other, young} {
			if goesOn.Err() != nil {
				t.Error("an attempt gives way that has just begun, or is of another namespace")
			}
		}
	})
	t.Run("a way leaves a worker to the others of its namespace, which leaves a quarter to other namespaces", func(t *testing.T) {
		l := New(10)
		for _, request := range []Request{app, other} {
			l.learn(request, finding{heard: true})
		}
		for range 6 {
			expectAdmission(t, l, app, admitted)
		}
		expectAdmission(t, l, app, later)
		expectAdmission(t, l, other, admitted)
		expectAdmission(t, l, other, later)
		expectAdmission(t, l, requestFor("two.example", settings{Namespace: "b"}), admitted)
	})
	t.Run("a canceled attempt is no result", func(t *testing.T) {
		l := &Throttle{}
		expectAdmission(t, l, app, admitted)
		l.learn(app, finding{heard: true})
		l.leave(app, finding{heard: true, err: errors.Join(down, context.Canceled)})
		for range probes + 1 {
			expectAdmission(t, l, app, admitted)
		}
	})
	t.Run("an invalid signature is no failure of the registry, an unreadable one is", func(t *testing.T) {
		for _, c := range []struct {
			denial *trust.VerificationError
			want   admission
		}{
			{&trust.VerificationError{Verdict: trust.Rejected}, admitted},
			{&trust.VerificationError{Verdict: trust.Unknown}, admitted},
			{&trust.VerificationError{Verdict: trust.Unknown, Unanswered: down}, isClosed},
			{&trust.VerificationError{Verdict: trust.Rejected, Unanswered: context.DeadlineExceeded}, isClosed},
		} {
			l := &Throttle{}
			expectAdmission(t, l, app, admitted)
			l.leave(app, finding{heard: true, err: &fault.Error{Reason: v1alpha1.ReasonVerificationError, Class: fault.Retry, Err: c.denial}})
			for range probes {
				expectAdmission(t, l, app, admitted)
			}
			expectAdmission(t, l, app, c.want)
		}
	})
	t.Run("an attempt without an answer is no result after others", func(t *testing.T) {
		l := &Throttle{}
		expectAdmission(t, l, app, admitted)
		l.leave(app, finding{err: down})
		expectAdmission(t, l, app, admitted)
		l.leave(app, finding{})
		for range probes {
			expectAdmission(t, l, app, admitted)
		}
		expectAdmission(t, l, app, isClosed)
		l.leave(app, finding{heard: true})
		expectAdmission(t, l, app, admitted)
	})
	t.Run("Retry-After quiets the access that was told so, and no other tenant's", func(t *testing.T) {
		l := &Throttle{}
		expectAdmission(t, l, app, admitted)
		l.leave(app, finding{heard: true, err: &fault.Error{Reason: v1alpha1.ReasonFetchFailed, Class: fault.Retry, RetryAfter: time.Hour, Err: errors.New("429")}})
		if wait := expectAdmission(t, l, app, isQuiet); wait < 59*time.Minute {
			t.Errorf("told to wait %s", wait)
		}
		neighbour := requestFor("one.example", settings{Namespace: "b", Login: "login"})
		expectAdmission(t, l, neighbour, admitted)
	})
	t.Run("a wait that is over is forgotten", func(t *testing.T) {
		l := &Throttle{}
		expectAdmission(t, l, app, admitted)
		l.leave(app, finding{heard: true, err: &fault.Error{Reason: v1alpha1.ReasonFetchFailed, Class: fault.Retry, RetryAfter: time.Nanosecond, Err: errors.New("429")}})
		expectAdmission(t, l, app, admitted)
		if len(l.quiet) != 0 {
			t.Errorf("%d waits are remembered", len(l.quiet))
		}
	})
	hasty := requestFor("one.example", settings{Namespace: "a"})
	hasty.Way.Hasty, hasty.Way.Namespace = true, "a"
	for what, broken := range map[string]Request{
		"a proxy":         requestFor("one.example", settings{Namespace: "a", ProxySecret: "proxy"}),
		"a CA":            requestFor("one.example", settings{Namespace: "a", CertSecret: "ca"}),
		"plain HTTP":      requestFor("one.example", settings{Namespace: "a", Insecure: true}),
		"too little time": hasty,
	} {
		t.Run("a mistake of one tenant closes no way of another: "+what, func(t *testing.T) {
			l := &Throttle{}
			expectAdmission(t, l, broken, admitted)
			l.leave(broken, finding{heard: true, err: down})
			for range probes {
				expectAdmission(t, l, broken, admitted)
			}
			expectAdmission(t, l, broken, isClosed)
			for range probes {
				expectAdmission(t, l, app, admitted)
			}
			expectAdmission(t, l, app, later)
		})
	}
}
