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

package e2e

import (
	"fmt"
	"net/http"
	"sync"
	"syscall"
	"testing"
	"time"

	. "github.com/onsi/gomega"

	"github.com/image-source/image-source-controller/test/stage"
)

// mutiny is an upheaval among several replicas, of which one leads.
type mutiny struct {
	*upheaval
	*replicas
}

// Whatever becomes of three replicas, of the one that leads, and of the registry
// behind them, consumers are not led astray, no replica denies what is recorded,
// and when it is over everything is as if nothing had been.
func TestChaosAmongReplicas(t *testing.T) {
	t.Parallel()
	const (
		shard   = "mutiny"
		sources = 3
		turmoil = 20 * time.Second
	)
	r := startReplicas(t, shard, shortRetention...)
	m := mutiny{
		replicas: r,
		upheaval: &upheaval{victim: &victim{tenant: r.tenant, registry: newGate(t, env.Registry().URL()), random: r.random}},
	}
	consumers := m.populate(sources, shard)
	_, w := r.watchReplicas()

	deeds := schedule(r.random, turmoil, 500*time.Millisecond, m.userDeed)
	faults := m.faults()
	var users sync.WaitGroup
	users.Go(func() { r.carryOut(deeds) })
	r.carryOut(faults)
	users.Wait()

	wanted := m.wanted()
	before := r.unharmed(wanted)
	r.content(w)
	for _, consumer := range consumers {
		consumer.content()
	}
	for _, artifact := range before {
		r.held(artifact)
	}
	r.takeDown(kill, r.all...)
	for _, controller := range r.all {
		r.swept(controller, before)
	}
	r.Expect(r.unharmed(wanted, r.all...)).To(Equal(before), "restarts change nothing")
}

// faults are one of each kind, two of what makes a second leader, in an order
// and with particulars that the seed decides. Each is over when what it does returns.
func (m mutiny) faults() []deed {
	kinds := []func() deed{
		m.usurpation, m.usurpation,
		func() deed { return m.death("the replica that leads dies", false, m.leading) },
		func() deed { return m.death("the replica that leads dies, and its disk is lost", true, m.leading) },
		func() deed { return m.death("a replica dies, and its disk is lost", true, m.one()) },
		func() deed { return m.death("all replicas die", false, func() []*stage.Controller { return m.all }) },
		m.loss,
		m.decay,
		func() deed { return m.refusal("500", status(http.StatusInternalServerError)) },
		func() deed { return m.refusal("429", status(http.StatusTooManyRequests)) },
		func() deed { return m.refusal("wrong bytes", m.registry.altered(flipped)) },
		func() deed { return m.refusal("a reset", reset) },
	}
	const pause = 400 * time.Millisecond
	var faults []deed
	for _, i := range m.random.Perm(len(kinds)) {
		next := kinds[i]()
		next.after = m.draw(pause)
		faults = append(faults, next)
	}
	return faults
}

// draw draws a duration.
func (m mutiny) draw(below time.Duration) time.Duration {
	return time.Duration(m.random.Int64N(int64(below)))
}

// one draws a replica.
func (m mutiny) one() func() []*stage.Controller {
	drawn := m.all[m.random.IntN(len(m.all))]
	return func() []*stage.Controller { return []*stage.Controller{drawn} }
}

// leading is the replica that leads at the time.
func (m mutiny) leading() []*stage.Controller { return []*stage.Controller{m.leader()} }

// death kills replicas, and starts them again after a while.
func (m mutiny) death(what string, lost bool, which func() []*stage.Controller) deed {
	after := m.draw(time.Second)
	return deed{what: what, do: func() {
		dead := which()
		m.takeDown(kill, dead...)
		m.pass(after)
		for _, controller := range dead {
			if lost {
				m.wipe(controller.StorageDir)
			}
			m.bringUp(controller)
		}
	}}
}

// usurpation stops the replica that leads for so long that another one does, and
// lets it go on. Until it notices that it has lost the lease, two believe that they
// lead, of which one has an old view. Then it ends, as it must, and is started again.
func (m mutiny) usurpation() deed {
	longer := m.draw(time.Second)
	return deed{what: fmt.Sprintf("the replica that leads is frozen until another one has led for %s", longer), do: func() {
		first, ended, thaw := m.freezeLeader()
		m.pass(longer)
		thaw()
		m.Eventually(ended, patience).Should(BeClosed(), "who has lost the lease ends")
		m.bringUp(first)
	}}
}

// freezeLeader stops the replica that leads, and returns when another one does. Who
// leads may have changed just before it is stopped: then it tries again. ended
// closes when that replica ends, and thaw has it go on.
func (m mutiny) freezeLeader() (first *stage.Controller, ended <-chan struct{}, thaw func()) {
	m.eventually(func(g Gomega) {
		first = m.leader()
		holder := m.holder(m.shard, "")
		ended = first.Exited()
		pid := first.PID()
		g.Expect(syscall.Kill(pid, syscall.SIGSTOP)).To(Succeed())
		thaw = func() { m.Expect(syscall.Kill(pid, syscall.SIGCONT)).To(Or(Succeed(), MatchError(syscall.ESRCH))) }
		usurped := m.usurped(holder)
		if !usurped {
			thaw()
		}
		g.Expect(usurped).To(BeTrue(), "the one that was stopped led no longer")
	})
	return first, ended, thaw
}

// usurped waits for another to lead than a holder of the lease, and tells whether
// one does: none can while the lease is renewed.
func (m mutiny) usurped(holder string) (really bool) {
	const underWay = time.Second // longer than a renewal may be that was begun before
	since := time.Now()
	m.eventually(func(g Gomega) {
		lease := m.lease(g, m.shard)
		really = *lease.HolderIdentity != "" && *lease.HolderIdentity != holder
		g.Expect(really || lease.RenewTime.After(since.Add(underWay))).To(BeTrue(), "the lease is neither renewed nor taken")
	})
	return really
}

// loss takes a file from a replica that runs.
func (m mutiny) loss() deed {
	which, file := m.one(), m.random.IntN(100)
	return deed{what: "a replica loses a file", do: func() { m.lose(which()[0].StorageDir, file) }}
}

// decay has the files of a replica rot while that does not run.
func (m mutiny) decay() deed {
	which := m.one()
	return deed{what: "a replica dies, and its files rot", do: func() {
		controller := which()[0]
		m.takeDown(kill, controller)
		for _, file := range m.files(controller.StorageDir) {
			m.overwrite(file)
		}
		m.bringUp(controller)
	}}
}

// refusal has the registry fail for a while, for some of the requests.
func (m mutiny) refusal(what string, answer http.HandlerFunc) deed {
	every, lasts := 1+m.random.IntN(3), 200*time.Millisecond+m.draw(time.Second)
	return deed{what: fmt.Sprintf("the registry answers one in %d with %s for %s", every, what, lasts), do: func() {
		heal := m.registry.answer(all(byUs, oneIn(every)), answer)
		m.pass(lasts)
		heal()
	}}
}
