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

package controllers_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/go-logr/logr/funcr"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/static"
	. "github.com/onsi/gomega"
	"github.com/onsi/gomega/types"
	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	k8stypes "k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/record"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	ctrlconfig "sigs.k8s.io/controller-runtime/pkg/config"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"
	"sigs.k8s.io/yaml"

	imagev1 "github.com/fluxcd/image-reflector-controller/api/v1"
	"github.com/fluxcd/pkg/apis/meta"
	"github.com/fluxcd/pkg/runtime/conditions"
	helper "github.com/fluxcd/pkg/runtime/controller"
	"github.com/fluxcd/pkg/runtime/events"
	"github.com/fluxcd/pkg/runtime/metrics"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"

	"github.com/image-source/image-source-controller/api/v1alpha1"
	"github.com/image-source/image-source-controller/controllers"
	"github.com/image-source/image-source-controller/pkg/format"
	"github.com/image-source/image-source-controller/pkg/operator"
	"github.com/image-source/image-source-controller/pkg/registry"
	"github.com/image-source/image-source-controller/pkg/serve"
	"github.com/image-source/image-source-controller/pkg/source"
	"github.com/image-source/image-source-controller/pkg/store"
	"github.com/image-source/image-source-controller/pkg/trust"
	"github.com/image-source/image-source-controller/test/publish"
)

const (
	digestA = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
	digestB = "sha256:bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"
	// deadline of expected events; a busy machine may be slow.
	deadline = 60 * time.Second
	poll     = 25 * time.Millisecond
	// fieldManager of the controllers.
	fieldManager = controllers.FieldManager
	// sceneLabel tells the TrustPolicies of a scene from those of others.
	sceneLabel = "image-source-controller.test/scene"
)

// scene is a namespace with its own registry, artifact server and disk. Its controllers see
// no other scene, so tests do not disturb each other.
type scene struct {
	*testing.T
	server    *apiServer
	client    client.WithWatch
	namespace string
	// platform is the namespace of the controllers.
	platform string
	// beside are further namespaces for the controllers.
	beside   []string
	registry *publish.InProcess
	// artifacts answers for the artifact server of whichever controller runs.
	artifacts *doorway
	storage   string
	rules     source.Rules
	limits    format.Limits
	labelKeys []string
	// watchSecrets watches labelled Secrets of the namespace.
	watchSecrets bool
	// transport, if not nil, wraps the connection of the controllers to the API server.
	transport func(http.RoundTripper) http.RoundTripper
	// shard, if not nil, is the watch selector.
	shard labels.Selector
	// interval of new ImageRepositories.
	interval time.Duration
	log      *journal
	// overheard, if not nil, is called with each event before it is sent.
	overheard func(about runtime.Object, reason, message string)
	running   *running
}

// newScene makes a scene in a namespace with the opt-in. No controller runs yet.
func newScene(t *testing.T) *scene {
	t.Helper()
	t.Parallel()
	NewWithT(t).Expect(server.start(t.Context())).To(Succeed())
	return newSceneOn(t, server)
}

// newSceneOn makes a scene on a running API server.
func newSceneOn(t *testing.T, server *apiServer) *scene {
	t.Helper()
	s := &scene{
		T: t, server: server, client: server.client, registry: publish.Serve(), storage: t.TempDir(), log: &journal{},
		rules: source.Rules{NamespaceOptIn: source.NamespaceOptInLabel}, limits: format.DefaultLimits(), interval: time.Hour,
	}
	s.namespace = s.makeNamespace(map[string]string{v1alpha1.UseAsSource: v1alpha1.UseAsSourceEnabled})
	s.platform = s.makeNamespace(nil)
	s.artifacts = openDoorway()
	t.Cleanup(func() {
		if t.Failed() {
			s.tell()
		}
		s.stop()
		s.artifacts.Close()
		s.registry.CloseClientConnections()
		s.registry.Close()
	})
	return s
}

// startScene makes a scene and starts its controllers.
func startScene(t *testing.T) *scene {
	t.Helper()
	s := newScene(t)
	s.start()
	return s
}

func (s *scene) makeNamespace(labels map[string]string) string {
	s.Helper()
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "test-", Labels: labels}}
	NewWithT(s).Expect(s.client.Create(s.Context(), namespace)).To(Succeed())
	return namespace.Name
}

// running is the controllers of one process.
type running struct {
	stop    func()
	manager manager.Manager
	store   *store.Replica
	// handler serves the stored files of this process, and the files it can get.
	handler http.Handler
	metrics *prometheus.Registry
}

// start starts the controllers on the scene's disk, and lets
// them answer for the artifact server.
func (s *scene) start() {
	s.Helper()
	s.startAs(launchOptions{})
}

func (s *scene) startAs(o launchOptions) {
	s.Helper()
	s.running = s.launch(s.storage, o)
	s.artifacts.open(s.running.handler)
}

// stop ends the controllers, and waits until they did.
func (s *scene) stop() {
	s.artifacts.close()
	if s.running != nil {
		s.running.stop()
		s.running = nil
	}
}

// launchOptions are the special options of a process.
type launchOptions struct {
	// peers are the host:port of the other processes.
	peers []string
	// follows: it is not the leader, and its controllers do not run.
	follows bool
	// unsynced is not to wait for its caches.
	unsynced bool
}

// launch starts controllers on a disk.
func (s *scene) launch(storage string, o launchOptions) *running {
	s.Helper()
	g := NewWithT(s)
	ctx, cancel := context.WithCancel(context.WithoutCancel(s.Context()))
	r := &running{metrics: prometheus.NewRegistry()}
	var err error
	r.manager, err = s.newManager()
	g.Expect(err).NotTo(HaveOccurred())
	local, err := store.Open(store.Options{Root: storage, AdvertisedAddress: s.artifacts.host(), RetentionTTL: time.Minute, RetentionRecords: 2})
	g.Expect(err).NotTo(HaveOccurred())
	r.store, err = store.NewReplica(local, store.PeerOptions{Hosts: o.peers, Address: ":0", MaxBytes: s.limits.ArtifactBytes})
	g.Expect(err).NotTo(HaveOccurred())
	supplier, err := s.assemble(ctx, r, o.follows)
	g.Expect(err).NotTo(HaveOccurred())
	ended := make(chan error, 1)
	go func() {
		var supplying sync.WaitGroup
		supplying.Go(func() { supplier.Run(ctrl.LoggerInto(ctx, s.log.logger())) })
		err := r.manager.Start(ctx)
		supplying.Wait()
		ended <- err
	}()
	r.stop = func() {
		cancel()
		if err := errors.Join(<-ended, local.Close()); err != nil {
			s.Errorf("the controllers ended with %v", err)
		}
	}
	if !o.unsynced {
		g.Expect(r.manager.GetCache().WaitForCacheSync(ctx)).To(BeTrue())
	}
	return r
}

func (s *scene) newManager() (manager.Manager, error) {
	seen := map[string]cache.Config{s.namespace: {}, s.platform: {}}
	for _, namespace := range s.beside {
		seen[namespace] = cache.Config{}
	}
	secrets := map[string]cache.Config{s.platform: {}}
	if s.watchSecrets {
		secrets[s.namespace] = cache.Config{LabelSelector: labels.SelectorFromSet(labels.Set{meta.LabelKeyWatch: meta.LabelValueWatchEnabled})}
	}
	caches := operator.CacheOptions(s.shard, secrets)
	caches.DefaultNamespaces = seen
	// The policies of other scenes govern no namespace here, and have no Secrets here.
	caches.ByObject[&v1alpha1.TrustPolicy{}] = cache.ByObject{Label: labels.SelectorFromSet(labels.Set{sceneLabel: s.namespace})}
	config := rest.CopyConfig(s.server.config)
	config.WrapTransport = s.transport
	return ctrl.NewManager(config, ctrl.Options{
		Scheme:                 scheme(),
		Logger:                 s.log.logger(),
		HealthProbeBindAddress: "0",
		Metrics:                metricsserver.Options{BindAddress: "0"},
		Cache:                  caches,
		Client:                 client.Options{Cache: &client.CacheOptions{DisableFor: []client.Object{&corev1.Secret{}, &corev1.ServiceAccount{}}}},
		Controller:             ctrlconfig.Controller{SkipNameValidation: new(true), RecoverPanic: new(false), MaxConcurrentReconciles: 4},
	})
}

// assemble puts the controllers together with the code of the program.
func (s *scene) assemble(ctx context.Context, r *running, follows bool) (*serve.Supplier, error) {
	mgr := r.manager
	ours, err := controllers.NewMetrics(r.metrics)
	if err != nil {
		return nil, err
	}
	recorder, err := events.NewRecorder(mgr, s.log.logger(), "", fieldManager)
	if err != nil {
		return nil, err
	}
	ofObjects := metrics.NewRecorder()
	r.metrics.MustRegister(ofObjects.Collectors()...)
	access, err := registry.NewClient(registry.Options{Observe: ours.ObserveRegistry})
	if err != nil {
		return nil, err
	}
	if err := controllers.IndexFields(ctx, mgr.GetFieldIndexer()); err != nil {
		return nil, err
	}
	parts := &operator.Parts{
		Rules: s.rules, Content: format.Options{Limits: s.limits}, LabelKeys: s.labelKeys,
		Retries: helper.RateLimiterOptions{MinRetryDelay: 50 * time.Millisecond, MaxRetryDelay: 400 * time.Millisecond},
		Metrics: ours, Events: &controllers.Events{Recorder: listener{recorder, s.overheard}, Metrics: helper.NewMetrics(mgr, ofObjects)},
		Store: r.store, Pipeline: operator.NewPipeline(mgr, access, nil, r.store), Trust: operator.NewTrust(mgr, s.platform, trust.Options{}),
		CollectEvery: 200 * time.Millisecond, Follows: follows,
	}
	supplier, err := operator.Setup(mgr, parts)
	if err != nil {
		return nil, err
	}
	r.handler = r.store.Handler(operator.HandlerOptions(parts, supplier))
	return supplier, nil
}

// listener lets a test hear events at once: the API server is told of them later.
type listener struct {
	record.EventRecorder

	overheard func(about runtime.Object, reason, message string)
}

// AnnotatedEventf implements record.EventRecorder.
//
//nolint:revive // the interface has that many arguments
func (l listener) AnnotatedEventf(obj runtime.Object, annotations map[string]string, eventType, reason, format string, args ...any) {
	if l.overheard != nil {
		l.overheard(obj, reason, fmt.Sprintf(format, args...))
	}
	l.EventRecorder.AnnotatedEventf(obj, annotations, eventType, reason, format, args...)
}

// Event implements record.EventRecorder.
func (l listener) Event(obj runtime.Object, eventType, reason, message string) {
	if l.overheard != nil {
		l.overheard(obj, reason, message)
	}
	l.EventRecorder.Event(obj, eventType, reason, message)
}

// doorway is the address of the artifact server, which outlives the processes behind it.
type doorway struct {
	*httptest.Server
	behind atomic.Pointer[http.Handler]
}

func openDoorway() *doorway {
	d := &doorway{}
	d.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if handler := d.behind.Load(); handler != nil {
			(*handler).ServeHTTP(w, r)
			return
		}
		w.WriteHeader(http.StatusBadGateway)
	}))
	return d
}

func (d *doorway) open(handler http.Handler) { d.behind.Store(&handler) }
func (d *doorway) close()                    { d.behind.Store(nil) }
func (d *doorway) host() string              { return d.Listener.Addr().String() }

// journal is the log of the controllers, shown when a test fails.
type journal struct {
	mu    sync.Mutex
	lines bytes.Buffer
}

func (j *journal) logger() logr.Logger {
	return funcr.New(func(prefix, args string) {
		if strings.Contains(args, `"msg"="Starting `) {
			return
		}
		j.mu.Lock()
		defer j.mu.Unlock()
		fmt.Fprintf(&j.lines, "%s %s %s\n", time.Now().Format("15:04:05.000"), prefix, args)
	}, funcr.Options{})
}

func (j *journal) String() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.lines.String()
}

func (j *journal) forget() {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.lines.Reset()
}

// tell prints details about a failed test.
func (s *scene) tell() {
	ctx := context.WithoutCancel(s.Context())
	for _, list := range []client.ObjectList{
		&v1alpha1.ArtifactRepositoryList{}, &sourcev1.ExternalArtifactList{}, &imagev1.ImagePolicyList{}, &imagev1.ImageRepositoryList{},
	} {
		if err := s.client.List(ctx, list, client.InNamespace(s.namespace)); err != nil {
			s.Log(err)
			continue
		}
		_ = apimeta.EachListItem(list, func(obj runtime.Object) error {
			obj.(client.Object).SetManagedFields(nil)
			text, err := yaml.Marshal(obj)
			s.Logf("%T:\n%s", obj, text)
			return err
		})
	}
	lines := strings.Split(s.log.String(), "\n")
	s.Logf("the registry was asked:\n%s", strings.Join(s.registry.Requests(), "\n"))
	s.Logf("the controllers said:\n%s", strings.Join(lines[max(0, len(lines)-60):], "\n"))
}

// Objects of a test, and the part of image-reflector-controller.

// push pushes files as team/<name>:<tag> and returns the digests of manifest
// and layer.
func (s *scene) push(image string, files publish.Files) (manifest, layer v1.Hash) {
	s.Helper()
	g := NewWithT(s)
	artifact, err := s.registry.Shelf().Flux(s.Context(), "team/"+image, files)
	g.Expect(err).NotTo(HaveOccurred())
	manifest, err = artifact.Digest()
	g.Expect(err).NotTo(HaveOccurred())
	layers, err := artifact.Layers()
	g.Expect(err).NotTo(HaveOccurred())
	layer, err = layers[0].Digest()
	g.Expect(err).NotTo(HaveOccurred())
	return manifest, layer
}

// pushNonsense pushes a Flux artifact with an invalid archive as its layer.
func (s *scene) pushNonsense(image string) {
	s.Helper()
	g := NewWithT(s)
	artifact, err := publish.FluxImage(static.NewLayer([]byte("this is no gzip"), publish.FluxContent))
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(s.registry.Shelf().Push(s.Context(), "team/"+image, artifact)).To(Succeed())
}

// pushImage pushes a container image.
func (s *scene) pushImage(image string) {
	s.Helper()
	g := NewWithT(s)
	artifact, err := random.Image(100, 1)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(s.registry.Shelf().Push(s.Context(), "team/"+image, artifact)).To(Succeed())
}

// dockerConfig is a Secret with a login to the registry.
func (s *scene) dockerConfig(key client.ObjectKey, user, password string) *corev1.Secret {
	text := fmt.Sprintf(`{"auths": {%q: {"username": %q, "password": %q}}}`, s.registry.Host(), user, password)
	return &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: key.Namespace, Name: key.Name},
		Type:       corev1.SecretTypeDockerConfigJson,
		StringData: map[string]string{corev1.DockerConfigJsonKey: text},
	}
}

// image is the name of an image in the registry.
func (s *scene) image(name string) string { return s.registry.Host() + "/team/" + name }

// controlledBy returns a controller reference to an ArtifactRepository.
func controlledBy(name string, uid k8stypes.UID) []metav1.OwnerReference {
	obj := &v1alpha1.ArtifactRepository{ObjectMeta: metav1.ObjectMeta{Name: name, UID: uid}}
	return []metav1.OwnerReference{*metav1.NewControllerRef(obj, v1alpha1.GroupVersion.WithKind(v1alpha1.ArtifactRepositoryKind))}
}

// create creates an object.
func (s *scene) create(obj client.Object) {
	s.Helper()
	NewWithT(s).Expect(s.client.Create(s.Context(), obj)).To(Succeed())
}

// imageRepository creates the ImageRepository of an image.
func (s *scene) imageRepository(name string, change ...func(*imagev1.ImageRepository)) {
	s.Helper()
	obj := &imagev1.ImageRepository{
		ObjectMeta: metav1.ObjectMeta{Namespace: s.namespace, Name: name},
		Spec:       imagev1.ImageRepositorySpec{Image: s.image(name), Interval: metav1.Duration{Duration: s.interval}},
	}
	for _, c := range change {
		c(obj)
	}
	s.create(obj)
}

// imagePolicy creates an ImagePolicy for the ImageRepository of its name.
func (s *scene) imagePolicy(name string, change ...func(*imagev1.ImagePolicy)) {
	s.Helper()
	obj := &imagev1.ImagePolicy{
		ObjectMeta: metav1.ObjectMeta{Namespace: s.namespace, Name: name},
		Spec: imagev1.ImagePolicySpec{
			ImageRepositoryRef: meta.NamespacedObjectReference{Name: name},
			Policy:             imagev1.ImagePolicyChoice{SemVer: &imagev1.SemVerPolicy{Range: "*"}},
		},
	}
	for _, c := range change {
		c(obj)
	}
	s.create(obj)
}

// useAsSource annotates an object.
func useAsSource[T client.Object](value string) func(T) {
	return func(obj T) { obj.SetAnnotations(map[string]string{v1alpha1.UseAsSource: value}) }
}

var annotated = useAsSource[*imagev1.ImagePolicy](v1alpha1.UseAsSourceTrue)

// artifactRepository creates an ArtifactRepository for the policy of its name.
func (s *scene) artifactRepository(name string, change ...func(*v1alpha1.ArtifactRepository)) {
	s.Helper()
	obj := &v1alpha1.ArtifactRepository{
		ObjectMeta: metav1.ObjectMeta{Namespace: s.namespace, Name: name},
		Spec:       v1alpha1.ArtifactRepositorySpec{ImagePolicyRef: &meta.LocalObjectReference{Name: name}},
	}
	for _, c := range change {
		c(obj)
	}
	s.create(obj)
}

// picks writes a pick into a policy's status, as image-reflector-controller does. A
// reference without a name is one of the policy's image.
func (s *scene) picks(name string, ref imagev1.ImageRef) {
	s.Helper()
	if ref.Name == "" {
		ref.Name = s.image(name)
	}
	editStatus(s, name, func(obj *imagev1.ImagePolicy) {
		obj.Status.ObservedGeneration = obj.Generation
		obj.Status.LatestRef = &ref
		conditions.MarkTrue(obj, meta.ReadyCondition, meta.SucceededReason, "latest image tag resolved to %s", ref.Tag)
	})
}

// publishes creates a source: image objects and an annotated policy with a pick, and waits
// for the publication.
func (s *scene) publishes(name, tag string) *sourcev1.ExternalArtifact {
	s.Helper()
	s.source(name, tag)
	return s.waitPublished(name, tag+"@")
}

// source writes image objects and an annotated policy that picked a tag, and pushes the tag.
func (s *scene) source(name, tag string) (manifest, layer v1.Hash) {
	s.Helper()
	manifest, layer = s.push(name+":"+tag, publish.Files{"app.yaml": "version: " + tag + "\n"})
	s.imageRepository(name)
	s.imagePolicy(name, annotated)
	s.picks(name, imagev1.ImageRef{Tag: tag})
	return manifest, layer
}

// object is a kind for tests to read by name.
type object[T any] interface {
	*T
	client.Object
}

// read reads an object; it must exist.
func read[T any, P object[T]](s *scene, name string) P {
	s.Helper()
	obj := P(new(T))
	NewWithT(s).Expect(s.client.Get(s.Context(), client.ObjectKey{Namespace: s.namespace, Name: name}, obj)).To(Succeed())
	return obj
}

// edit changes an object as a person does.
func edit[T any, P object[T]](s *scene, name string, change func(P)) P {
	s.Helper()
	obj := read[T, P](s, name)
	before := obj.DeepCopyObject().(client.Object)
	change(obj)
	NewWithT(s).Expect(s.client.Patch(s.Context(), obj, client.MergeFrom(before))).To(Succeed())
	return obj
}

// editStatus changes the status of an object.
func editStatus[T any, P object[T]](s *scene, name string, change func(P)) {
	s.Helper()
	obj := read[T, P](s, name)
	before := obj.DeepCopyObject().(client.Object)
	change(obj)
	NewWithT(s).Expect(s.client.Status().Patch(s.Context(), obj, client.MergeFrom(before))).To(Succeed())
}

// remove deletes an object.
func remove[T any, P object[T]](s *scene, name string) {
	s.Helper()
	NewWithT(s).Expect(s.client.Delete(s.Context(), read[T, P](s, name))).To(Succeed())
}

func (s *scene) record(name string) *v1alpha1.ArtifactRepository {
	s.Helper()
	return read[v1alpha1.ArtifactRepository](s, name)
}

func (s *scene) external(name string) *sourcev1.ExternalArtifact {
	s.Helper()
	return read[sourcev1.ExternalArtifact](s, name)
}

// labels sets the labels of the scene's namespace.
func (s *scene) labels(labels map[string]string) {
	s.Helper()
	g := NewWithT(s)
	namespace := &corev1.Namespace{}
	g.Expect(s.client.Get(s.Context(), client.ObjectKey{Name: s.namespace}, namespace)).To(Succeed())
	before := namespace.DeepCopy()
	namespace.Labels = labels
	g.Expect(s.client.Patch(s.Context(), namespace, client.MergeFrom(before))).To(Succeed())
}

// Conditions for tests to wait for.

// eventually waits until a check holds.
func (s *scene) eventually(check func(g Gomega)) {
	s.Helper()
	NewWithT(s).Eventually(check).WithTimeout(deadline).WithPolling(poll).Should(Succeed())
}

// get is read within a check.
func get[T any, P object[T]](g Gomega, s *scene, name string) P {
	obj := P(new(T))
	g.Expect(s.client.Get(s.Context(), client.ObjectKey{Namespace: s.namespace, Name: name}, obj)).To(Succeed())
	return obj
}

// gone checks that an object of a kind and name does not exist.
func gone[T any, P object[T]](s *scene, name string) func(g Gomega) {
	return func(g Gomega) {
		err := s.client.Get(s.Context(), client.ObjectKey{Namespace: s.namespace, Name: name}, P(new(T)))
		g.Expect(client.IgnoreNotFound(err)).To(Succeed())
		g.Expect(err).To(HaveOccurred(), "%s exists", name)
	}
}

// waitPublished waits until a revision with a prefix is published, recorded and
// at rest, and returns the ExternalArtifact.
func (s *scene) waitPublished(name, revision string) *sourcev1.ExternalArtifact {
	s.Helper()
	var external *sourcev1.ExternalArtifact
	s.eventually(func(g Gomega) {
		obj := get[v1alpha1.ArtifactRepository](g, s, name)
		g.Expect(obj.Status.ObservedGeneration).To(Equal(obj.Generation))
		g.Expect(conditions.IsReady(obj)).To(BeTrue(), "%v", obj.Status.Conditions)
		g.Expect(conditions.Has(obj, meta.ReconcilingCondition)).To(BeFalse())
		g.Expect(obj.Status.Artifact.Revision).To(HavePrefix(revision))
		external = get[sourcev1.ExternalArtifact](g, s, name)
		g.Expect(external.Status.Artifact).To(Equal(obj.Status.Artifact))
		g.Expect(conditions.IsReady(external)).To(BeTrue(), "%v", external.Status.Conditions)
	})
	return external
}

// waitFailed waits until an ArtifactRepository is not ready for a reason, with
// words in its message.
func (s *scene) waitFailed(name, reason string, words ...string) *v1alpha1.ArtifactRepository {
	s.Helper()
	var obj *v1alpha1.ArtifactRepository
	s.eventually(func(g Gomega) {
		obj = get[v1alpha1.ArtifactRepository](g, s, name)
		g.Expect(obj.Status.ObservedGeneration).To(Equal(obj.Generation))
		ready := conditions.Get(obj, meta.ReadyCondition)
		g.Expect(ready).NotTo(BeNil())
		g.Expect(ready.Status).To(Equal(metav1.ConditionFalse), ready.Message)
		g.Expect(ready.Reason).To(Equal(reason), ready.Message)
		for _, word := range words {
			g.Expect(ready.Message).To(ContainSubstring(word))
		}
	})
	return obj
}

// reconciled asks for a reconcile of an ArtifactRepository and waits until it
// was handled.
func (s *scene) reconciled(name string) *v1alpha1.ArtifactRepository {
	s.Helper()
	token := time.Now().Format(time.RFC3339Nano)
	edit(s, name, func(obj *v1alpha1.ArtifactRepository) { request(obj, token) })
	var obj *v1alpha1.ArtifactRepository
	s.eventually(func(g Gomega) {
		obj = get[v1alpha1.ArtifactRepository](g, s, name)
		g.Expect(obj.Status.LastHandledReconcileAt).To(Equal(token))
	})
	return obj
}

// request asks for a reconcile as flux reconcile does.
func request(obj client.Object, token string) {
	annotations := obj.GetAnnotations()
	if annotations == nil {
		annotations = map[string]string{}
	}
	annotations[meta.ReconcileRequestAnnotation] = token
	obj.SetAnnotations(annotations)
}

// haveCondition matches an object with a condition of a status and reason.
func haveCondition(kind string, status metav1.ConditionStatus, reason string) types.GomegaMatcher {
	return WithTransform(func(obj conditions.Getter) string {
		condition := conditions.Get(obj, kind)
		if condition == nil {
			return "no " + kind
		}
		return fmt.Sprintf("%s=%s %s", kind, condition.Status, condition.Reason)
	}, Equal(fmt.Sprintf("%s=%s %s", kind, status, reason)))
}

// haveNoCondition matches an object without a condition.
func haveNoCondition(kind string) types.GomegaMatcher {
	return WithTransform(func(obj conditions.Getter) bool { return conditions.Has(obj, kind) }, BeFalse())
}

// fetch gets a URL and returns the status code and the body.
func (s *scene) fetch(url string) (int, []byte) {
	s.Helper()
	g := NewWithT(s)
	request, err := http.NewRequestWithContext(s.Context(), http.MethodGet, url, http.NoBody)
	g.Expect(err).NotTo(HaveOccurred())
	response, err := s.artifacts.Client().Do(request)
	g.Expect(err).NotTo(HaveOccurred())
	defer response.Body.Close()
	var body bytes.Buffer
	_, err = body.ReadFrom(response.Body)
	g.Expect(err).NotTo(HaveOccurred())
	return response.StatusCode, body.Bytes()
}

// expectServed asserts that an artifact's URL answers with its digest.
func (s *scene) expectServed(artifact *meta.Artifact) {
	s.Helper()
	g := NewWithT(s)
	code, body := s.fetch(artifact.URL)
	g.Expect(code).To(Equal(http.StatusOK))
	digest, _, err := v1.SHA256(bytes.NewReader(body))
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(artifact.Digest).To(Equal(digest.String()))
}

// file is where an artifact lies on the scene's disk.
func (s *scene) file(artifact *meta.Artifact) string {
	return filepath.Join(s.storage, filepath.FromSlash(artifact.Path))
}

func fileExists(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular()
}

// stored lists the files on the scene's disk, unfinished ones included.
func (s *scene) stored() []string {
	var files []string
	_ = filepath.WalkDir(s.storage, func(path string, entry os.DirEntry, err error) error {
		if err == nil && !entry.IsDir() {
			files = append(files, strings.TrimPrefix(path, s.storage))
		}
		return nil // a file that vanishes meanwhile is not stored
	})
	return files
}

// events lists the Kubernetes events about an object of a kind.
func (s *scene) events(kind, name string) []corev1.Event {
	s.Helper()
	var list corev1.EventList
	NewWithT(s).Expect(s.client.List(s.Context(), &list, client.InNamespace(s.namespace))).To(Succeed())
	var about []corev1.Event
	for _, e := range list.Items {
		if e.InvolvedObject.Kind == kind && e.InvolvedObject.Name == name {
			about = append(about, e)
		}
	}
	return about
}

// haveEvent matches events with a reason and a word in the message.
func haveEvent(reason, word string) types.GomegaMatcher {
	return ContainElement(SatisfyAll(
		HaveField("Reason", Equal(reason)),
		HaveField("Message", ContainSubstring(word)),
	))
}
