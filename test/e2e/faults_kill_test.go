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
	"maps"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/static"

	imagev1 "github.com/fluxcd/image-reflector-controller/api/v1"
	"github.com/fluxcd/pkg/apis/meta"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"

	"github.com/image-source/image-source-controller/api/v1alpha1"
	"github.com/image-source/image-source-controller/test/publish"
	"github.com/image-source/image-source-controller/test/stage"
)

// victim is a source whose controller is killed, with gates before all that
// the controller talks to.
type victim struct {
	*tenant
	api, registry *gate
	controller    *stage.Controller
	level         int // of the version that was pushed last
	random        *rand.Rand
	// signer signs what is pushed, where a signature is demanded.
	signer *publish.Signer
	// content is the digest of the layer that was pushed last.
	content atomic.Pointer[v1.Hash]
}

// step is a place on the path of an image where the controller can die.
type step struct {
	name string
	// layer makes what is pushed; nil is a clean one.
	layer func(*rand.Rand) ([]byte, error)
	// reach has a newer version pushed and returns when the controller is at
	// the step. What it returns ends the fault, after the controller is dead.
	reach func(v *victim, push func()) (end func())
	// recorded and published tell how far the new version got.
	recorded, published bool
}

const app = "app"

var (
	recordIsWritten     = all(does(http.MethodPatch, "/artifactrepositories/app/status"), says(`"artifact":`))
	conditionsAreMarked = all(does(http.MethodPatch, "/artifactrepositories/app/status"), func(p passage) bool { return !says(`"artifact":`)(p) })
	recordIsPublished   = does(http.MethodPatch, "/externalartifacts/app/status")
	tagIsResolved       = all(byUs, has(http.MethodGet, "/manifests/1.0."))
	signaturesAreListed = all(byUs, has(http.MethodGet, "/referrers/"))
	signatureIsFetched  = all(byUs, has(http.MethodGet, "/manifests/sha256-"), func(p passage) bool { return strings.HasSuffix(p.Path, ".sig") })
	partly              = func(p passage) bool { return p.Bytes > 0 }
)

// contentIsFetched matches the pull of the layer that was pushed last, and not
// that of a signature.
func (v *victim) contentIsFetched() matcher {
	return func(p passage) bool {
		content := v.content.Load()
		return content != nil && byUs(p) && does(http.MethodGet, "/blobs/"+content.String())(p)
	}
}

// writes are those that publish a version.
var writes = map[string]matcher{
	"the record":                recordIsWritten,
	"its publication":           recordIsPublished,
	"the marking of conditions": conditionsAreMarked,
}

// steps are those of the path of an image, in its order, by the numbers of
// docs/architecture.md. Step 5 asks nobody: it has been taken when the controller
// begins to look for signatures. Nor does step 9, but the disk shows that it is
// under way; each moment inside of it is hit by TestKill of pkg/store.
var steps = []step{
	{name: "1: the event of a new pick is on its way", reach: api(inAnswer, watches("imagepolicies"))},
	{name: "2: the objects are being read", reach: reading},
	{name: "3: the keys of signers are being read", reach: api(beforeServer, has(http.MethodGet, "/secrets/keys"))},
	{name: "3: the credentials are being read", reach: api(beforeServer, has(http.MethodGet, "/secrets/pull"))},
	{name: "4: the tag was asked for", reach: registry(beforeServer, tagIsResolved)},
	{name: "4: the manifest is about to arrive", reach: registry(beforeAnswer, tagIsResolved)},
	{name: "5: it is found to be new, and signatures are asked for", reach: registry(beforeServer, signaturesAreListed)},
	{name: "6: the list of signatures is about to arrive", reach: registry(beforeAnswer, signaturesAreListed)},
	{name: "6: a signature is about to arrive", reach: registry(beforeAnswer, signatureIsFetched)},
	{name: "7: the signature is good, and the blob is asked for", reach: pulling(beforeServer)},
	{name: "7: half of the blob has arrived", reach: pulling(inAnswer, partly)},
	{name: "8: the content is being archived", reach: archiving, layer: unclean},
	{name: "9: the bytes are being stored", reach: storing, layer: unclean},
	{name: "9: the bytes are stored", reach: writing(beforeServer, recordIsWritten)},
	{name: "10: the record is written", reach: writing(beforeAnswer, recordIsWritten), recorded: true},
	{name: "11: the record is about to be published", reach: writing(beforeServer, recordIsPublished), recorded: true},
	{name: "11: the record is published", reach: writing(beforeAnswer, recordIsPublished), recorded: true, published: true},
	{name: "11: the conditions are about to be marked", reach: writing(beforeServer, conditionsAreMarked), recorded: true, published: true},
	{name: "11: the conditions are marked", reach: writing(beforeAnswer, conditionsAreMarked), recorded: true, published: true},
}

func api(at point, match matcher) func(*victim, func()) func() {
	return func(v *victim, push func()) func() { return v.stopped(v.api.stop(at, match), push) }
}

// writing stops a write that is about the version that is pushed next.
func writing(at point, match matcher) func(*victim, func()) func() {
	return func(v *victim, push func()) func() { return v.stopped(v.api.stop(at, all(match, v.aboutNext())), push) }
}

// aboutNext matches what names the version that is pushed next.
func (v *victim) aboutNext() matcher { return says(fmt.Sprintf("1.0.%d@", v.level+1)) }

func registry(at point, match matcher) func(*victim, func()) func() {
	return func(v *victim, push func()) func() { return v.stopped(v.registry.stop(at, match), push) }
}

// pulling stops the pull of the layer that is pushed next.
func pulling(at point, also ...matcher) func(*victim, func()) func() {
	return func(v *victim, push func()) func() {
		return v.stopped(v.registry.stop(at, all(append(also, v.contentIsFetched())...)), push)
	}
}

func (v *victim) stopped(b *barrier, push func()) func() {
	v.Helper()
	push()
	b.await(v.tenant)
	return b.sever
}

// reading stops a controller that starts at the first time it reads. Later
// it reads from memory.
func reading(v *victim, push func()) func() {
	v.Expect(v.controller.Kill()).To(Succeed())
	push()
	b := v.api.stop(beforeServer, lists("imagerepositories"))
	started := make(chan error, 1)
	go func() { started <- v.controller.Restart(v.Context()) }()
	b.await(v.tenant)
	return func() {
		b.sever()
		v.Expect(<-started).To(HaveOccurred(), "it cannot have become ready")
	}
}

// archiving waits for the file that content is collected in before it is archived.
func archiving(v *victim, push func()) func() {
	push()
	v.Eventually(func() ([]string, error) {
		return filepath.Glob(filepath.Join(v.controller.StorageDir, "tmp", "*", "spool"))
	}, patience, time.Millisecond).ShouldNot(BeEmpty())
	return func() {
		left, err := filepath.Glob(filepath.Join(v.controller.StorageDir, "tmp", "*", "spool"))
		v.Expect(err).NotTo(HaveOccurred())
		v.Expect(left).NotTo(BeEmpty(), "it was not killed while it archived")
	}
}

// storing waits for the file that is stored to get the mode of those that are,
// which is the first thing that is done to it, and lets a moment pass, so that
// each seed hits another one. Beyond the store it does not get.
func storing(v *victim, push func()) func() {
	const longest = 20 * time.Millisecond
	stored := v.api.stop(beforeServer, all(recordIsWritten, v.aboutNext()))
	push()
	v.Eventually(func() bool {
		select {
		case <-stored.reached:
			return true // it was faster
		default:
			return v.isStoring()
		}
	}, patience, time.Millisecond).Should(BeTrue())
	v.pass(time.Duration(v.random.Int64N(int64(longest))))
	return func() {
		v.Logf("it was still storing: %t", v.isStoring())
		stored.sever()
	}
}

// isStoring tells whether a file in a scratch folder has the mode of those that
// are stored.
func (v *victim) isStoring() bool {
	v.Helper()
	const stored = 0o640
	files, err := filepath.Glob(filepath.Join(v.controller.StorageDir, "tmp", "*", "*"))
	v.Expect(err).NotTo(HaveOccurred())
	return slices.ContainsFunc(files, func(file string) bool {
		info, err := os.Stat(file)
		return err == nil && info.Mode() == stored
	})
}

// unclean makes a layer that must be archived again, which takes a while.
func unclean(random *rand.Rand) ([]byte, error) {
	return layerOf(
		entry{name: "link", link: "deploy"},
		entry{name: "deploy/app.yaml", content: noise(random, 24<<20)},
	)
}

// push pushes the next version and returns its revision and its layer.
func (v *victim) push(layer []byte) (revision string, digest v1.Hash) {
	v.Helper()
	v.level++
	tag := fmt.Sprintf("1.0.%d", v.level)
	if layer == nil {
		var err error
		layer, err = publish.Layer(publish.Files{"deploy/app.yaml": tag, "deploy/ballast": noise(v.random, 256<<10)})
		v.Expect(err).NotTo(HaveOccurred())
	}
	pushed := static.NewLayer(layer, publish.FluxContent)
	image, err := publish.FluxImage(pushed)
	v.Expect(err).NotTo(HaveOccurred())
	digest, err = pushed.Digest()
	v.Expect(err).NotTo(HaveOccurred())
	v.content.Store(&digest)
	registry := publish.Registry{Host: env.Registry().Host()}
	if v.signer != nil {
		// Before it has the tag that is picked: until it is signed it is rejected.
		unsigned := v.image(app) + ":unsigned"
		v.Expect(registry.Push(v.Context(), unsigned, image)).To(Succeed())
		v.Expect(registry.Sign(v.Context(), unsigned, v.signer)).To(Succeed())
	}
	v.Expect(registry.Push(v.Context(), v.image(app)+":"+tag, image)).To(Succeed())
	manifest, err := image.Digest()
	v.Expect(err).NotTo(HaveOccurred())
	return tag + "@" + manifest.String(), digest
}

// newVictim publishes version 1.0.1 of a source, of which a signature is
// demanded, through gates.
func newVictim(t *testing.T, shard string) *victim {
	t.Helper()
	return newVictimBehind(newAPIGate(t), newTenant(t, v1alpha1.UseAsSourceEnabled), shard)
}

// newVictimBehind is newVictim with a gate to an API server.
func newVictimBehind(api *gate, n *tenant, shard string) *victim {
	n.Helper()
	v := &victim{tenant: n, api: api, registry: newGate(n.T, env.Registry().URL()), random: chance(n.T)}
	v.controller = startShardBehind(n, v.api, shard, slices.Concat(quickAPI, shortRetention)...)
	var err error
	v.signer, err = publish.NewSigner()
	n.Expect(err).NotTo(HaveOccurred())
	v.push(nil)
	pull := named(n, "pull", &corev1.Secret{})
	pull.Type = corev1.SecretTypeDockerConfigJson
	pull.Data = map[string][]byte{corev1.DockerConfigJsonKey: fmt.Appendf(nil,
		`{"auths":{%q:{"username":"anybody","password":"anything"}}}`, v.registry.host())}
	keys := named(n, "keys", &corev1.Secret{})
	keys.Data = map[string][]byte{"cosign.pub": v.signer.PublicKey}
	n.create(pull, keys)
	v.scan(app, through(n, v.registry.host(), app), inShard(shard), notAnnotated, func(repository *imagev1.ImageRepository, _ *imagev1.ImagePolicy) {
		repository.Spec.SecretRef = &meta.LocalObjectReference{Name: pull.Name}
	})
	v.writtenByHand(app, func(obj *v1alpha1.ArtifactRepository) {
		obj.Labels = map[string]string{shardLabel: shard}
		obj.Spec.Verify = &sourcev1.OCIRepositoryVerification{Provider: "cosign", SecretRef: &meta.LocalObjectReference{Name: keys.Name}}
	})
	v.published(app, "1.0.1")
	return v
}

// Wherever it dies, and whether or not its disk survives, a controller that is
// started again publishes what the policy picks, under the URL and with the
// digest that it always has; and meanwhile no consumer is led astray.
func TestKilledAtEachStep(t *testing.T) {
	t.Parallel()
	for name, lost := range map[string]bool{"its storage survives": false, "its storage is lost": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			v := newVictim(t, map[bool]string{false: "killed", true: "killed-and-wiped"}[lost])
			consumer := consume(v.tenant, app)
			for _, i := range v.random.Perm(len(steps)) {
				v.Logf("%s step %s", time.Now().Format(time.TimeOnly), steps[i].name)
				v.dieAt(steps[i], lost)
			}
			v.collected(v.controller, map[string]string{app: fmt.Sprintf("1.0.%d", v.level)})
			sequence := consumer.content()
			v.Expect(sequence).To(HaveLen(v.level), "each version was published once: %v", sequence)
		})
	}
}

func (v *victim) dieAt(step step, lost bool) {
	v.Helper()
	var layer []byte
	var err error
	if step.layer != nil {
		layer, err = step.layer(v.random)
		v.Expect(err).NotTo(HaveOccurred())
	}
	before := get(v.tenant, app, &v1alpha1.ArtifactRepository{}).Status.Artifact
	var revision string
	var digest v1.Hash
	end := step.reach(v, func() {
		revision, digest = v.push(layer)
		v.picked(app, fmt.Sprintf("1.0.%d", v.level))
	})
	v.Expect(v.controller.Kill()).To(Succeed())
	end()

	recorded := get(v.tenant, app, &v1alpha1.ArtifactRepository{}).Status.Artifact
	published := get(v.tenant, app, &sourcev1.ExternalArtifact{}).Status.Artifact
	v.Expect(recorded.Revision == revision).To(Equal(step.recorded), "recorded is %s at step %s", recorded.Revision, step.name)
	v.Expect(published.Revision == revision).To(Equal(step.published), "published is %s at step %s", published.Revision, step.name)
	if !step.recorded {
		v.Expect(recorded).To(Equal(before), "what stands is untouched")
	}
	if lost {
		v.wipe(v.controller.StorageDir)
	}

	v.Expect(v.controller.Restart(v.Context())).To(Succeed(), "step %s", step.name)
	now := v.published(app, revision)
	if step.recorded {
		v.Expect(now.URL).To(Equal(recorded.URL))
		v.Expect(now.Digest).To(Equal(recorded.Digest))
	}
	if step.layer == nil {
		v.Expect(now.Digest).To(Equal(digest.String()), "a clean layer is served as its own bytes")
	}
	after := v.unharmed(map[string]string{app: revision}, v.controller)
	v.Expect(after[app]).To(BeSamePublication(now))
}

// The first time that a source is published, objects are made that may be
// there already when the controller comes back.
func TestKilledAtTheFirstPublication(t *testing.T) {
	t.Parallel()
	const shard = "killed-at-first"
	n := newTenant(t, v1alpha1.UseAsSourceEnabled)
	gate := newAPIGate(t)
	controller := startShardBehind(n, gate, shard, slices.Concat(quickAPI, shortRetention)...)
	applies := func(resource string) func(string) matcher {
		return func(source string) matcher { return does(http.MethodPatch, "/"+resource+"/"+source) }
	}
	publishes := func(source string) matcher { return all(does(http.MethodPost, "/externalartifacts"), says(source)) }
	moments := map[string]struct {
		at    point
		match func(source string) matcher
		// own tells that the source has a policy of its own, not one that others made.
		own bool
	}{
		"before-the-artifactrepository": {at: beforeServer, match: applies("artifactrepositories")},
		"after-the-artifactrepository":  {at: beforeAnswer, match: applies("artifactrepositories")},
		"before-the-externalartifact":   {at: beforeServer, match: publishes},
		"after-the-externalartifact":    {at: beforeAnswer, match: publishes},
		"before-the-imagerepository":    {at: beforeServer, match: applies("imagerepositories"), own: true},
		"after-the-imagerepository":     {at: beforeAnswer, match: applies("imagerepositories"), own: true},
		"before-the-imagepolicy":        {at: beforeServer, match: applies("imagepolicies"), own: true},
		"after-the-imagepolicy":         {at: beforeAnswer, match: applies("imagepolicies"), own: true},
	}
	wanted := map[string]string{}
	for _, name := range shuffled(chance(t), moments) {
		test := moments[name]
		wanted[name] = "1.0.0"
		n.push(name, "1.0.0", configMap("app", name))
		stopped := gate.stop(test.at, test.match(name))
		if test.own {
			n.follows(name, shard)
		} else {
			n.scan(name, inShard(shard))
		}
		stopped.await(n)
		n.Expect(controller.Kill()).To(Succeed(), name)
		stopped.sever()
		n.wipe(controller.StorageDir)
		n.Expect(controller.Restart(n.Context())).To(Succeed(), name)
		n.unharmed(wanted, controller)
		record := get(n, name, &v1alpha1.ArtifactRepository{})
		n.Expect(record.Status.History).To(HaveLen(1), name)
		if test.own {
			for _, object := range []client.Object{&imagev1.ImageRepository{}, &imagev1.ImagePolicy{}} {
				n.Expect(metav1.IsControlledBy(get(n, name, object), record)).To(BeTrue(), "%T %s", object, name)
			}
		}
	}
	n.collected(controller, wanted)
}

// follows creates a source that has a policy of its own.
func (n *tenant) follows(name, shard string) {
	n.Helper()
	obj := named(n, name, &v1alpha1.ArtifactRepository{})
	obj.Labels = map[string]string{shardLabel: shard}
	obj.Spec = v1alpha1.ArtifactRepositorySpec{
		Image: n.ref(name), Insecure: true, Interval: &metav1.Duration{Duration: time.Second},
		Policy: &imagev1.ImagePolicyChoice{SemVer: &imagev1.SemVerPolicy{Range: ">=0.0.0"}},
	}
	n.create(obj)
}

// shuffled returns the keys of a map in an order that the seed decides.
func shuffled[T any](random *rand.Rand, values map[string]T) []string {
	keys := slices.Sorted(maps.Keys(values))
	random.Shuffle(len(keys), func(i, j int) { keys[i], keys[j] = keys[j], keys[i] })
	return keys
}

// A write that is under way when its controller dies may reach the API server
// long after: what it says is old news then, and must not stand.
func TestWritesThatArriveLate(t *testing.T) {
	t.Parallel()
	v := newVictim(t, "late")
	for _, name := range shuffled(v.random, writes) {
		write := writes[name]
		consumer := consume(v.tenant, app)
		late := v.api.stop(beforeServer, all(write, v.aboutNext()), func(b *barrier) { b.late, b.once = true, true })
		v.push(nil)
		late.await(v.tenant)
		v.Expect(v.controller.Kill()).To(Succeed())
		revision, _ := v.push(nil)
		v.Expect(v.controller.Restart(v.Context())).To(Succeed())
		v.published(app, revision)
		v.settled(app, revision)
		v.api.forget()
		late.open()
		v.Eventually(func() int { return late.answered() }, patience, poll).Should(Equal(http.StatusConflict), name)
		v.Expect(get(v.tenant, app, &v1alpha1.ArtifactRepository{}).Status.Artifact.Revision).To(Equal(revision), name)
		v.Expect(get(v.tenant, app, &sourcev1.ExternalArtifact{}).Status.Artifact.Revision).To(Equal(revision), name)
		consumer.content()
	}
}

// An API server that does what it is asked but whose answer is lost gets the
// same request again; nothing is done twice.
func TestAnswersThatAreLost(t *testing.T) {
	t.Parallel()
	v := newVictim(t, "cut")
	consumer := consume(v.tenant, app, neverDown)
	for _, name := range shuffled(v.random, writes) {
		write := writes[name]
		lost := v.api.stop(beforeAnswer, all(write, v.aboutNext()))
		revision, _ := v.push(nil)
		lost.await(v.tenant)
		lost.sever()
		v.Logf("lost the answer to %s", name)
		v.unharmed(map[string]string{app: revision}, v.controller)
	}
	v.Expect(consumer.content()).To(HaveLen(v.level))
}
