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
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"

	"github.com/image-source/image-source-controller/api/v1alpha1"
	"github.com/image-source/image-source-controller/pkg/credentials"
	"github.com/image-source/image-source-controller/pkg/fault"
	"github.com/image-source/image-source-controller/pkg/trust"
)

func planFor(t *testing.T, image string, references credentials.References) Plan {
	t.Helper()
	repository, err := name.NewRepository(image)
	if err != nil {
		t.Fatal(err)
	}
	return Plan{Namespace: references.Namespace, Timeout: time.Minute, Repository: repository, Access: references}
}

func expectAdmission(t *testing.T, l *lanes, plan Plan, want admission) time.Duration {
	t.Helper()
	got, wait := l.enter(plan, false)
	if got != want {
		t.Fatalf("admission %d, want %d", got, want)
	}
	return wait
}

func TestLanes(t *testing.T) {
	down := fault.Retryf(v1alpha1.ReasonFetchFailed, "no answer")
	app := planFor(t, "one.example/app", credentials.References{Namespace: "a", SecretName: "login"})
	other := planFor(t, "two.example/app", credentials.References{Namespace: "a"})

	t.Run("until a registry has answered only a few attempts find out whether it does", func(t *testing.T) {
		l := &lanes{capacity: 8}
		expectAdmission(t, l, app, admitted)
		expectAdmission(t, l, app, admitted)
		expectAdmission(t, l, app, later)
		expectAdmission(t, l, other, admitted)
	})
	t.Run("the first answer opens the lane up to its capacity, and the rest come later and later", func(t *testing.T) {
		l := &lanes{capacity: 3}
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
		l := &lanes{capacity: 7}
		expectAdmission(t, l, app, admitted)
		l.leave(app, finding{heard: true, err: down})
		expectAdmission(t, l, app, admitted)
		expectAdmission(t, l, app, admitted)
		expectAdmission(t, l, app, closed)
		if got, _ := l.enter(app, true); got != admitted {
			t.Error("a person who insists is not let in")
		}
		l.leave(app, finding{heard: true})
		expectAdmission(t, l, app, admitted)
	})
	t.Run("a registry that answers with an error works", func(t *testing.T) {
		l := &lanes{capacity: 7}
		limited := &fault.Error{Reason: v1alpha1.ReasonFetchFailed, Class: fault.Retry, Answered: true, Err: errors.New("429")}
		expectAdmission(t, l, app, admitted)
		l.leave(app, finding{heard: true, err: fmt.Errorf("in an attempt: %w", limited)})
		for range probes + 1 {
			expectAdmission(t, l, app, admitted)
		}
	})
	t.Run("however many registries hang, they leave workers to those that answer", func(t *testing.T) {
		l := &lanes{capacity: 8}
		for _, host := range []string{"a", "b", "c", "d", "e"} {
			for _, namespace := range []string{"a", "b"} {
				l.enter(planFor(t, host+".example/app", credentials.References{Namespace: namespace}), false)
			}
		}
		busy := 0
		for _, state := range l.known {
			busy += state.busy
		}
		if busy != 4 {
			t.Errorf("%d attempts are in lanes that nobody knows to work", busy)
		}
	})
	t.Run("a namespace whose registries hang keeps no other from finding out about another", func(t *testing.T) {
		l := &lanes{}
		l.divide(10)
		for _, host := range []string{"a", "b", "c", "d", "e"} {
			for range probes {
				l.enter(planFor(t, host+".example/app", credentials.References{Namespace: "a"}), false)
			}
		}
		expectAdmission(t, l, planFor(t, "one.example/app", credentials.References{Namespace: "a"}), later)
		neighbour := planFor(t, "one.example/app", credentials.References{Namespace: "b"})
		expectAdmission(t, l, neighbour, admitted)
		expectAdmission(t, l, neighbour, later)
	})
	t.Run("a namespace that is long at a registry that answers, and says once that it does not, keeps no other from it", func(t *testing.T) {
		l := &lanes{}
		l.divide(10)
		for range 3 {
			expectAdmission(t, l, app, admitted)
			l.learn(app, finding{heard: true})
		}
		l.leave(app, finding{heard: true, err: down})
		for range probes {
			expectAdmission(t, l, app, admitted)
		}
		expectAdmission(t, l, app, closed)
		neighbour := planFor(t, "one.example/app", credentials.References{Namespace: "b"})
		expectAdmission(t, l, neighbour, admitted)
		expectAdmission(t, l, neighbour, closed)
		l.learn(neighbour, finding{heard: true})
		expectAdmission(t, l, neighbour, admitted)
	})
	t.Run("however many registries of a namespace hang, another one may try one that nobody has asked", func(t *testing.T) {
		for _, insist := range []bool{false, true} {
			l := &lanes{}
			l.divide(10)
			for i := range 10 {
				l.enter(planFor(t, fmt.Sprintf("hangs-%d.example/app", i), credentials.References{Namespace: "a"}), insist)
			}
			expectAdmission(t, l, planFor(t, "fresh.example/app", credentials.References{Namespace: "a"}), later)
			expectAdmission(t, l, planFor(t, "fresh.example/app", credentials.References{Namespace: "b"}), admitted)
		}
	})
	t.Run("however many registries of two namespaces hang, a third one may try one that nobody has asked", func(t *testing.T) {
		l := &lanes{}
		l.divide(10)
		admittedOfTwo := 0
		for _, namespace := range []string{"a", "b"} {
			for i := range 10 {
				hangs := planFor(t, fmt.Sprintf("hangs-%s-%d.example/app", namespace, i), credentials.References{Namespace: namespace})
				if got, _ := l.enter(hangs, true); got == admitted {
					admittedOfTwo++
				}
			}
		}
		if admittedOfTwo > 9 {
			t.Errorf("two namespaces have %d attempts, and there are 10 workers", admittedOfTwo)
		}
		expectAdmission(t, l, planFor(t, "fresh.example/app", credentials.References{Namespace: "c"}), admitted)
	})
	t.Run("however many attempts two namespaces have, a third one may begin", func(t *testing.T) {
		l := &lanes{}
		l.divide(10)
		for _, namespace := range []string{"a", "b"} {
			for i := range 10 {
				slow := planFor(t, fmt.Sprintf("slow-%d.example/app", i), credentials.References{Namespace: namespace})
				l.learn(slow, finding{heard: true})
				l.enter(slow, true)
			}
		}
		if _, wait := l.occupy("b"); wait == 0 {
			t.Error("work that asks no registry takes the last worker")
		}
		if end, wait := l.occupy("c"); wait > 0 {
			t.Error("a namespace that has nothing may not begin")
		} else {
			end()
		}
		third := planFor(t, "one.example/app", credentials.References{Namespace: "c"})
		l.learn(third, finding{heard: true})
		expectAdmission(t, l, third, admitted)
	})
	t.Run("however many attempts a namespace has, the platform judges what it has published", func(t *testing.T) {
		l := &lanes{}
		l.divide(10)
		for i := range 10 {
			slow := planFor(t, fmt.Sprintf("slow-%d.example/app", i), credentials.References{Namespace: "a"})
			l.learn(slow, finding{heard: true})
			l.enter(slow, i%2 == 0)
		}
		if _, wait := l.occupy("a"); wait == 0 {
			t.Error("more work is let in")
		}
		judgement := app
		judgement.Judges = true
		expectAdmission(t, l, judgement, admitted)
		expectAdmission(t, l, judgement, later)
		l.leave(judgement, finding{heard: true})
		expectAdmission(t, l, judgement, admitted)
	})
	t.Run("however many lanes a namespace has, it leaves workers to the others", func(t *testing.T) {
		l := &lanes{capacity: 3, share: 4}
		work := func(references credentials.References) Plan {
			plan := planFor(t, "one.example/app", references)
			l.learn(plan, finding{heard: true})
			return plan
		}
		plain, insecure := work(credentials.References{Namespace: "a"}), work(credentials.References{Namespace: "a", Insecure: true})
		proxied := work(credentials.References{Namespace: "a", ProxySecretName: "proxy"})
		expectAdmission(t, l, plain, admitted)
		expectAdmission(t, l, plain, admitted)
		expectAdmission(t, l, insecure, admitted)
		first := expectAdmission(t, l, proxied, later)
		if second := expectAdmission(t, l, proxied, later); first <= 0 || second <= first {
			t.Errorf("told to wait %s and then %s", first, second)
		}
		if got, _ := l.enter(proxied, true); got != later {
			t.Error("whoever insists gets more than the share of the namespace")
		}
		expectAdmission(t, l, work(credentials.References{Namespace: "b"}), admitted)
		l.leave(insecure, finding{heard: true})
		expectAdmission(t, l, proxied, admitted)
		l.leave(proxied, finding{heard: true})
		l.leave(plain, finding{heard: true})
		l.leave(plain, finding{heard: true})
		if len(l.busy) != 1 {
			t.Errorf("%d namespaces are remembered, of which one has an attempt", len(l.busy))
		}
	})
	t.Run("a lane leaves a worker to the others of its namespace, which leaves a quarter to other namespaces", func(t *testing.T) {
		l := &lanes{}
		l.divide(10)
		for _, plan := range []Plan{app, other} {
			l.learn(plan, finding{heard: true})
		}
		for range 6 {
			expectAdmission(t, l, app, admitted)
		}
		expectAdmission(t, l, app, later)
		expectAdmission(t, l, other, admitted)
		expectAdmission(t, l, other, later)
		expectAdmission(t, l, planFor(t, "two.example/app", credentials.References{Namespace: "b"}), admitted)
	})
	t.Run("an attempt that was given up shows nothing", func(t *testing.T) {
		l := &lanes{}
		expectAdmission(t, l, app, admitted)
		l.learn(app, finding{heard: true})
		l.leave(app, finding{heard: true, err: errors.Join(down, context.Canceled)})
		for range probes + 1 {
			expectAdmission(t, l, app, admitted)
		}
	})
	t.Run("what signatures say is no matter of the registry, and that they cannot be read is", func(t *testing.T) {
		for _, c := range []struct {
			denial *trust.Denial
			want   admission
		}{
			{&trust.Denial{Verdict: trust.Rejected}, admitted},
			{&trust.Denial{Verdict: trust.Unknown}, admitted},
			{&trust.Denial{Verdict: trust.Unknown, Unanswered: down}, closed},
			{&trust.Denial{Verdict: trust.Rejected, Unanswered: context.DeadlineExceeded}, closed},
		} {
			l := &lanes{}
			expectAdmission(t, l, app, admitted)
			l.leave(app, finding{heard: true, err: &fault.Error{Reason: v1alpha1.ReasonVerificationError, Class: fault.Retry, Err: c.denial}})
			for range probes {
				expectAdmission(t, l, app, admitted)
			}
			expectAdmission(t, l, app, c.want)
		}
	})
	t.Run("an attempt that needed no answer shows nothing where others have asked", func(t *testing.T) {
		l := &lanes{}
		expectAdmission(t, l, app, admitted)
		l.leave(app, finding{err: down})
		expectAdmission(t, l, app, admitted)
		l.leave(app, finding{})
		for range probes {
			expectAdmission(t, l, app, admitted)
		}
		expectAdmission(t, l, app, closed)
		l.leave(app, finding{heard: true})
		expectAdmission(t, l, app, admitted)
	})
	t.Run("Retry-After quiets the access that was told so, and no other tenant's", func(t *testing.T) {
		l := &lanes{}
		expectAdmission(t, l, app, admitted)
		l.leave(app, finding{heard: true, err: &fault.Error{Reason: v1alpha1.ReasonFetchFailed, Class: fault.Retry, RetryAfter: time.Hour, Err: errors.New("429")}})
		if wait := expectAdmission(t, l, app, putOff); wait < 59*time.Minute {
			t.Errorf("told to wait %s", wait)
		}
		neighbour := planFor(t, "one.example/app", credentials.References{Namespace: "b", SecretName: "login"})
		expectAdmission(t, l, neighbour, admitted)
	})
	t.Run("a wait that is over is forgotten", func(t *testing.T) {
		l := &lanes{}
		expectAdmission(t, l, app, admitted)
		l.leave(app, finding{heard: true, err: &fault.Error{Reason: v1alpha1.ReasonFetchFailed, Class: fault.Retry, RetryAfter: time.Nanosecond, Err: errors.New("429")}})
		expectAdmission(t, l, app, admitted)
		if len(l.quiet) != 0 {
			t.Errorf("%d waits are remembered", len(l.quiet))
		}
	})
	hasty := planFor(t, "one.example/app", credentials.References{Namespace: "a"})
	hasty.Timeout = time.Millisecond
	for what, broken := range map[string]Plan{
		"a proxy":         planFor(t, "one.example/app", credentials.References{Namespace: "a", ProxySecretName: "proxy"}),
		"a CA":            planFor(t, "one.example/app", credentials.References{Namespace: "a", CertSecretName: "ca"}),
		"plain HTTP":      planFor(t, "one.example/app", credentials.References{Namespace: "a", Insecure: true}),
		"too little time": hasty,
	} {
		t.Run("what one tenant gets wrong closes no lane of another: "+what, func(t *testing.T) {
			l := &lanes{}
			expectAdmission(t, l, broken, admitted)
			l.leave(broken, finding{heard: true, err: down})
			for range probes {
				expectAdmission(t, l, broken, admitted)
			}
			expectAdmission(t, l, broken, closed)
			for range probes {
				expectAdmission(t, l, app, admitted)
			}
			expectAdmission(t, l, app, later)
		})
	}
}
