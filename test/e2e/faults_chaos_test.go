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
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	imagev1 "github.com/fluxcd/image-reflector-controller/api/v1"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"

	"github.com/image-source/image-source-controller/api/v1alpha1"
	"github.com/image-source/image-source-controller/test/publish"
)

// deed is something that somebody does, some time after the deed before.
type deed struct {
	after time.Duration
	what  string
	do    func()
}

// schedule draws deeds until they fill a time. What is drawn depends on chance
// alone, not on what becomes of it.
func schedule(random *rand.Rand, total, pause time.Duration, draw func() deed) (deeds []deed) {
	for passed := time.Duration(0); passed < total; {
		next := draw()
		next.after = time.Duration(random.Int64N(int64(pause)))
		passed += next.after
		deeds = append(deeds, next)
	}
	return deeds
}

// carryOut does one deed after the other.
func (n *tenant) carryOut(deeds []deed) {
	for _, next := range deeds {
		select {
		case <-time.After(next.after):
		case <-n.Context().Done():
			return
		}
		n.Logf("%s %s", time.Now().Format(time.TimeOnly+".000"), next.what)
		next.do()
	}
}

// upheaval is a tenant whose sources are changed by their users, while whatever
// serves them fails.
type upheaval struct {
	*victim
	sources []*chaotic
}

// chaotic is a source as its user knows it.
type chaotic struct {
	name string
	// level of the highest tag, and the revision that it has by now.
	level    int
	revision string
	// wanted tells that it is opted in.
	wanted bool
}

// Whenever controllers are killed, registries and API servers fail and files
// rot, while tags move and sources come and go, consumers are not led astray,
// and when it is over everything is as if nothing had been.
func TestChaos(t *testing.T) {
	t.Parallel()
	const (
		shard   = "chaos"
		sources = 5
		turmoil = 12 * time.Second
	)
	n := newTenant(t, v1alpha1.UseAsSourceEnabled)
	u := &upheaval{victim: &victim{tenant: n, api: newAPIGate(t), registry: newGate(t, env.Registry().URL()), random: chance(t)}}
	u.controller = startShardBehind(n, u.api, shard, slices.Concat(quickAPI, shortRetention)...)
	consumers := u.populate(sources, shard)

	deeds := schedule(u.random, turmoil, 400*time.Millisecond, u.userDeed)
	faults := schedule(u.random, turmoil/2, 800*time.Millisecond, u.fault) // they take time themselves
	var users sync.WaitGroup
	users.Go(func() { n.carryOut(deeds) })
	n.carryOut(faults)
	users.Wait()

	n.collected(u.controller, u.wanted())
	for _, consumer := range consumers {
		consumer.content()
	}
}

// populate publishes sources, and returns who uses them.
func (u *upheaval) populate(sources int, shard string) (consumers []*consumer) {
	u.Helper()
	for i := range sources {
		source := &chaotic{name: fmt.Sprint("app-", i), wanted: true}
		u.sources = append(u.sources, source)
		u.push(source, true, "")
		u.scan(source.name, inShard(shard), through(u.tenant, u.registry.host(), source.name), reflecting(i%2 == 0))
	}
	for _, source := range u.sources {
		u.published(source.name, source.revision)
		consumers = append(consumers, consume(u.tenant, source.name))
	}
	return consumers
}

// wanted are the sources that are opted in, by now, and their revisions.
func (u *upheaval) wanted() map[string]string {
	wanted := map[string]string{}
	for _, source := range u.sources {
		if source.wanted {
			wanted[source.name] = source.revision
		}
	}
	return wanted
}

// reflecting has a policy tell the digest of the tag that it picks.
func reflecting(really bool) func(*imagev1.ImageRepository, *imagev1.ImagePolicy) {
	return func(_ *imagev1.ImageRepository, policy *imagev1.ImagePolicy) {
		if really {
			policy.Spec.DigestReflectionPolicy = imagev1.ReflectAlways
			policy.Spec.Interval = &metav1.Duration{Duration: time.Second}
		}
	}
}

// push pushes other content, under a tag that is new or the one that was pushed
// last.
func (u *upheaval) push(source *chaotic, isNew bool, content string) {
	u.Helper()
	if isNew {
		source.level++
	}
	tag := fmt.Sprint("1.0.", source.level)
	source.revision = u.tenant.push(source.name, tag, publish.Files{"deploy/app.yaml": tag, "deploy/ballast": content})
}

// userDeed draws what a user does. Everything is decided when it is drawn.
func (u *upheaval) userDeed() deed {
	source := u.sources[u.random.IntN(len(u.sources))]
	content := noise(u.random, 1+u.random.IntN(256<<10))
	policy := named(u.tenant, source.name, &imagev1.ImagePolicy{})
	switch u.random.IntN(10) {
	case 0, 1, 2, 3:
		return deed{what: "a new tag of " + source.name, do: func() { u.push(source, true, content) }}
	case 4:
		return deed{what: "the tag of " + source.name + " moves", do: func() { u.push(source, false, content) }}
	case 5, 6:
		return deed{what: "opt " + source.name + " in or out", do: func() {
			source.wanted = !source.wanted
			u.annotate(policy, v1alpha1.UseAsSource, map[bool]string{true: v1alpha1.UseAsSourceTrue}[source.wanted])
		}}
	case 7:
		return deed{what: "delete the ExternalArtifact " + source.name, do: func() {
			u.delete(named(u.tenant, source.name, &sourcev1.ExternalArtifact{}))
		}}
	case 8:
		return deed{what: "delete the ArtifactRepository " + source.name, do: func() {
			u.delete(named(u.tenant, source.name, &v1alpha1.ArtifactRepository{}))
		}}
	default:
		return deed{what: "make the policy " + source.name + " anew", do: func() {
			get(u.tenant, source.name, policy)
			u.delete(policy.DeepCopy())
			u.gone(source.name, &imagev1.ImagePolicy{})
			policy.ObjectMeta = metav1.ObjectMeta{Namespace: policy.Namespace, Name: policy.Name, Labels: policy.Labels, Annotations: policy.Annotations}
			policy.Status = imagev1.ImagePolicyStatus{}
			u.create(policy)
		}}
	}
}

// delete deletes an object, if it is there.
func (n *tenant) delete(obj client.Object) {
	n.Helper()
	n.Expect(client.IgnoreNotFound(env.Client.Delete(n.Context(), obj))).To(Succeed())
}

// fault draws a fault, which is over when what it does returns.
func (u *upheaval) fault() deed {
	lasts := 200*time.Millisecond + time.Duration(u.random.Int64N(int64(time.Second)))
	every := 1 + u.random.IntN(3)
	file := u.random.IntN(100)
	moment := time.Duration(u.random.Int64N(int64(200 * time.Millisecond)))
	failing := func(g *gate, match matcher, answer http.HandlerFunc) func() {
		return func() {
			heal := g.answer(all(match, oneIn(every)), answer)
			u.pass(lasts)
			heal()
		}
	}
	atRegistry := func(answer http.HandlerFunc) func() { return failing(u.registry, byUs, answer) }
	atAPI := func(answer http.HandlerFunc) func() { return failing(u.api, isWrite, answer) }
	switch u.random.IntN(15) {
	case 0, 1, 2:
		return deed{what: "kill", do: func() { u.die(func() {}) }}
	case 3:
		return deed{what: "kill twice", do: func() {
			u.Expect(u.controller.Kill()).To(Succeed())
			started := make(chan error, 1)
			go func() { started <- u.controller.Restart(u.Context()) }()
			u.pass(moment)
			u.die(func() { <-started })
		}}
	case 4:
		return deed{what: "kill, and lose the disk", do: func() { u.die(func() { u.wipe(u.controller.StorageDir) }) }}
	case 5:
		return deed{what: "kill, and lose a file", do: func() { u.die(func() { u.lose(u.controller.StorageDir, file) }) }}
	case 6:
		return deed{what: "delete a file", do: func() { u.lose(u.controller.StorageDir, file) }}
	case 7:
		return deed{what: "kill, and rot", do: func() { u.die(func() { u.rot(u.controller.StorageDir, file) }) }}
	case 8:
		return deed{what: fmt.Sprintf("the registry answers one in %d with 500 for %s", every, lasts), do: atRegistry(status(http.StatusInternalServerError))}
	case 9:
		return deed{what: fmt.Sprintf("the registry answers one in %d with 429 for %s", every, lasts), do: atRegistry(status(http.StatusTooManyRequests))}
	case 10:
		return deed{what: fmt.Sprintf("the registry answers one in %d with wrong bytes for %s", every, lasts), do: atRegistry(u.registry.altered(flipped))}
	case 11:
		return deed{what: fmt.Sprintf("the registry resets one in %d for %s", every, lasts), do: atRegistry(reset)}
	case 12:
		return deed{what: fmt.Sprintf("the API server refuses one in %d writes for %s", every, lasts), do: atAPI(status(http.StatusInternalServerError))}
	case 13:
		return deed{what: fmt.Sprintf("the answer to one in %d writes is lost for %s", every, lasts), do: atAPI(func(_ http.ResponseWriter, r *http.Request) {
			u.api.truth(r)
			panic(http.ErrAbortHandler)
		})}
	default:
		return deed{what: fmt.Sprintf("freeze for %s", lasts), do: func() {
			u.Expect(syscall.Kill(u.controller.PID(), syscall.SIGSTOP)).To(Succeed())
			u.pass(lasts)
			u.Expect(syscall.Kill(u.controller.PID(), syscall.SIGCONT)).To(Succeed())
		}}
	}
}

// die kills the controller, has something happen, and starts it again.
func (u *upheaval) die(meanwhile func()) {
	u.Helper()
	u.Expect(u.controller.Kill()).To(Succeed())
	meanwhile()
	u.Expect(u.controller.Restart(u.Context())).To(Succeed())
}

// lose removes one of the published files of a storage, if there is any.
func (n *tenant) lose(storage string, which int) {
	n.Helper()
	if file := n.file(storage, which); file != "" {
		n.Expect(os.Remove(file)).To(Or(Succeed(), MatchError(os.ErrNotExist)))
	}
}

// rot alters one of the published files of a storage, if there is any, under all
// names that its content has. Nobody else may touch it meanwhile.
func (n *tenant) rot(storage string, which int) {
	n.Helper()
	if file := n.file(storage, which); file != "" {
		n.overwrite(file)
	}
}

// file returns one of the published files of a storage, or nothing if there is none.
func (n *tenant) file(storage string, which int) string {
	n.Helper()
	files := n.files(storage)
	if len(files) == 0 {
		return ""
	}
	return files[which%len(files)]
}

// files returns the published files of a storage.
func (n *tenant) files(storage string) []string {
	n.Helper()
	files, err := filepath.Glob(filepath.Join(storage, "externalartifact", "*", "*", "*"))
	n.Expect(err).NotTo(HaveOccurred())
	return files
}

// pass lets time pass.
func (n *tenant) pass(duration time.Duration) {
	select {
	case <-time.After(duration):
	case <-n.Context().Done():
	}
}

// oneIn matches every so manieth request.
func oneIn(every int) matcher {
	var mu sync.Mutex
	var count int
	return func(passage) bool {
		mu.Lock()
		defer mu.Unlock()
		count++
		return count%every == 0
	}
}

// isWrite matches what changes something.
func isWrite(p passage) bool {
	return slices.Contains([]string{http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete}, p.Method)
}

func status(code int) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "a fault", code) }
}

func reset(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }
