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
	"context"
	"errors"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"reflect"
	"runtime/metrics"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/tools/record"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/yaml"

	imagev1 "github.com/fluxcd/image-reflector-controller/api/v1"
	"github.com/fluxcd/pkg/apis/meta"
	"github.com/fluxcd/pkg/runtime/conditions"
	helper "github.com/fluxcd/pkg/runtime/controller"
	fluxmetrics "github.com/fluxcd/pkg/runtime/metrics"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"

	"github.com/image-source/image-source-controller/api/v1alpha1"
	"github.com/image-source/image-source-controller/controllers"
	"github.com/image-source/image-source-controller/pkg/bridge"
	"github.com/image-source/image-source-controller/pkg/credentials"
	"github.com/image-source/image-source-controller/pkg/format"
	"github.com/image-source/image-source-controller/pkg/pipeline"
	"github.com/image-source/image-source-controller/pkg/registry"
	"github.com/image-source/image-source-controller/pkg/source"
	"github.com/image-source/image-source-controller/pkg/store"
	"github.com/image-source/image-source-controller/pkg/throttle"
	"github.com/image-source/image-source-controller/pkg/trust"
	"github.com/image-source/image-source-controller/test/publish"
)

const (
	// mostTime and mostBytes bound one reconcile of a specimen. It takes some
	// milliseconds and some hundred KiB; the rest is for a busy machine.
	mostTime  = 10 * time.Second
	mostBytes = 256 << 20
	// standIn in a specimen is replaced by the host of the registry.
	standIn = "REGISTRY"
)

// specimen is the input of a tenant: a whole spec, the used metadata, and the Secrets login
// and secret.
type specimen struct {
	Spec     v1alpha1.ArtifactRepositorySpec
	Metadata struct{ Token, Annotation, LabelKey, LabelValue string }
	// Login is the content of a Secret of the type kubernetes.io/dockerconfigjson.
	Login string
	// Secret is the content of the other one.
	Secret struct{ CA, Certificate, Key, Address, Username, Password, Keys, Policy, Trusted, Root string }
	// Refused: the platform refuses every image.
	Refused bool
}

// data returns the keys of the Secret with keys, certificates and the address of a proxy.
func (s specimen) data() map[string][]byte {
	data := map[string][]byte{}
	for key, text := range map[string]string{
		"ca.crt": s.Secret.CA, "tls.crt": s.Secret.Certificate, "tls.key": s.Secret.Key, "address": s.Secret.Address,
		"username": s.Secret.Username, "password": s.Secret.Password, "cosign.pub": s.Secret.Keys,
		"trustpolicy.json": s.Secret.Policy, "notary.crt": s.Secret.Trusted, "trusted_root.json": s.Secret.Root,
	} {
		if text != "" {
			data[key] = []byte(text)
		}
	}
	return data
}

// separator separates the fields of a specimen in one text.
const separator = "\x00"

// fields reads and writes the fields of a value, in order, each as a text. It has every
// field of every type in a spec, future ones included.
type fields struct{ texts []string }

func (f *fields) next() (text string) {
	if len(f.texts) > 0 {
		text, f.texts = f.texts[0], f.texts[1:]
	}
	return text
}

// read sets a value. A pointer takes a non-empty text if it is set, and a list one with its
// length, which up to three of its items repeat.
func (f *fields) read(v reflect.Value) {
	switch v.Kind() {
	case reflect.String:
		v.SetString(f.next())
	case reflect.Bool:
		v.SetBool(f.next() != "")
	case reflect.Int64:
		duration, _ := time.ParseDuration(f.next())
		v.SetInt(int64(duration))
	case reflect.Pointer:
		set, target := f.next() != "", reflect.New(v.Type().Elem())
		f.read(target.Elem())
		if set {
			v.Set(target)
		}
	case reflect.Slice:
		count, _ := strconv.Atoi(f.next())
		items := reflect.MakeSlice(v.Type(), 3, 3)
		for i := range 3 {
			f.read(items.Index(i))
		}
		for i := range min(max(count, 0), 1000) {
			v.Set(reflect.Append(v, items.Index(i%3)))
		}
	case reflect.Struct:
		for _, field := range v.Fields() {
			f.read(field)
		}
	default:
		panic("a field of the kind " + v.Kind().String())
	}
}

// write appends the texts for read.
func (f *fields) write(v reflect.Value) {
	set := map[bool]string{true: "set"}
	switch v.Kind() {
	case reflect.String:
		f.texts = append(f.texts, v.String())
	case reflect.Bool:
		f.texts = append(f.texts, set[v.Bool()])
	case reflect.Int64:
		f.texts = append(f.texts, time.Duration(v.Int()).String())
	case reflect.Pointer:
		f.texts = append(f.texts, set[!v.IsNil()])
		if v.IsNil() {
			v = reflect.New(v.Type().Elem())
		}
		f.write(v.Elem())
	case reflect.Slice:
		f.texts = append(f.texts, strconv.Itoa(v.Len()))
		for i := range 3 {
			if v.Len() > 0 {
				f.write(v.Index(i % v.Len()))
			} else {
				f.write(reflect.Zero(v.Type().Elem()))
			}
		}
	case reflect.Struct:
		for _, field := range v.Fields() {
			f.write(field)
		}
	default:
		panic("a field of the kind " + v.Kind().String())
	}
}

func (s specimen) text() []byte {
	var f fields
	f.write(reflect.ValueOf(s))
	return []byte(strings.Join(f.texts, separator))
}

func parseSpecimen(text []byte) (s specimen) {
	f := fields{strings.Split(string(text), separator)}
	f.read(reflect.ValueOf(&s).Elem())
	return s
}

// leavesTheMachine reports whether a specimen would send requests to a cloud or to an
// address outside loopback. Names are not resolved, and registries by address use a proxy
// that does not exist.
func (s specimen) leavesTheMachine() bool {
	switch s.Spec.Provider {
	case "aws", "azure", "gcp":
		return true
	}
	proxy, err := url.Parse(s.Secret.Address)
	if err != nil {
		return false
	}
	address := net.ParseIP(proxy.Hostname())
	return address != nil && !address.IsLoopback()
}

// seeds are the objects in the documentation and the samples, and known attacks.
func seeds(f *testing.F) (all []specimen) {
	f.Helper()
	var base specimen
	base.Spec.Image, base.Spec.Tag = standIn+"/allowed/app", "1"
	with := func(change func(*specimen)) {
		for _, refused := range []bool{false, true} {
			s := base
			s.Refused = refused
			change(&s)
			all = append(all, s)
		}
	}
	for _, spec := range documented(f) {
		with(func(s *specimen) { s.Spec = spec })
	}
	verify := func(s *specimen, issuer, subject string, count int) {
		s.Spec.Verify = &sourcev1.OCIRepositoryVerification{Provider: "cosign"}
		for range count {
			s.Spec.Verify.MatchOIDCIdentity = append(s.Spec.Verify.MatchOIDCIdentity, sourcev1.OIDCIdentityMatch{Issuer: issuer, Subject: subject})
		}
		s.Spec.Verify.TrustedRootSecretRef = &meta.LocalObjectReference{Name: "secret"}
		s.Secret.Root = `{"mediaType": "application/vnd.dev.sigstore.trustedroot+json;version=0.1"}`
	}
	keys := func(s *specimen, provider string) {
		s.Spec.Verify = &sourcev1.OCIRepositoryVerification{Provider: provider, SecretRef: &meta.LocalObjectReference{Name: "secret"}}
	}
	with(func(*specimen) {})
	with(func(s *specimen) { s.Spec.Image = standIn + "/refused/app" })
	for _, name := range []string{"", "a/b", ".."} {
		with(func(s *specimen) {
			s.Spec.Image, s.Spec.Tag, s.Spec.ImagePolicyRef = "", "", &meta.LocalObjectReference{Name: name}
		})
	}
	for _, name := range []string{"/allowed/../refused/app", "/allowed/./app", "/allowed//app", "/allowed/app/", "/allowed/app:1", "/allowed/%2e%2e/refused/app", "/allowed/app@sha256:a"} {
		with(func(s *specimen) { s.Spec.Image = standIn + name })
	}
	with(func(s *specimen) { s.Spec.Image = "REGİSTRY.example/allowed/app" })
	with(func(s *specimen) { verify(s, `\Qhttps://x`, ".*", 1) })
	with(func(s *specimen) { verify(s, `(?`, `[`, 1) })
	with(func(s *specimen) { verify(s, strings.Repeat(".{1000}", 3), strings.Repeat("(a*)*", 50), 300) })
	with(func(s *specimen) {
		keys(s, "cosign")
		s.Secret.Keys = "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"
	})
	with(func(s *specimen) {
		keys(s, "notation")
		s.Secret.Policy = `{"version": "1.0", "trustPolicies": [{"name": "a", "registryScopes": ["*"], "signatureVerification": {"level": "strict"}, "trustStores": ["ca:a"], "trustedIdentities": ["*"]}]}`
		s.Secret.Trusted = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
	})
	with(func(s *specimen) {
		s.Spec.SecretRef, s.Login = &meta.LocalObjectReference{Name: "login"}, `{"auths": {"`+standIn+`": {"username": "a", "password": "b"}}}`
		s.Spec.CertSecretRef, s.Secret.CA = &meta.LocalObjectReference{Name: "secret"}, "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
	})
	with(func(s *specimen) {
		s.Spec.Insecure, s.Spec.ProxySecretRef = true, &meta.LocalObjectReference{Name: "secret"}
		s.Secret.Address, s.Secret.Username, s.Secret.Password = "http://127.0.0.1:9", "a", "b"
	})
	with(func(s *specimen) {
		ignore := "**/*\n!" + strings.Repeat("[", 200) + "\n\\"
		s.Spec.Ignore, s.Spec.Platform = &ignore, "linux/arm64/v8"
		s.Spec.LayerSelector = &sourcev1.OCILayerSelector{MediaType: "application/x", Operation: "copy"}
	})
	with(func(s *specimen) {
		s.Spec.Tag, s.Spec.Policy = "", &imagev1.ImagePolicyChoice{SemVer: &imagev1.SemVerPolicy{Range: strings.Repeat(">=1 || ", 100)}}
		s.Spec.FilterTags = &imagev1.TagFilter{Pattern: "^(?P<v>(.*)*)$", Extract: "${v"}
	})
	with(func(s *specimen) { s.Metadata.Token, s.Spec.Suspend = strings.Repeat("t", 100_000), true })
	with(func(s *specimen) {
		s.Spec.Timeout, s.Spec.Interval = &metav1.Duration{Duration: 1}, &metav1.Duration{Duration: -1}
	})
	return all
}

// documented returns the specs of all ArtifactRepositories in the documentation and the samples.
func documented(f *testing.F) (specs []v1alpha1.ArtifactRepositorySpec) {
	f.Helper()
	files, _ := filepath.Glob("../docs/*/*.md")
	samples, _ := filepath.Glob("../config/samples/*.yaml")
	for _, file := range append(files, samples...) {
		content, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		for document := range strings.SplitSeq(strings.ReplaceAll(string(content), "```", "\n---\n"), "\n---\n") {
			_, text, found := strings.Cut(document, "apiVersion: "+v1alpha1.GroupVersion.String())
			var obj v1alpha1.ArtifactRepository
			if !found || yaml.Unmarshal([]byte("apiVersion: x"+text), &obj) != nil || obj.Kind != v1alpha1.ArtifactRepositoryKind {
				continue
			}
			obj.Spec.Image = strings.NewReplacer("ghcr.io/example/", standIn+"/allowed/", "registry.example.com", standIn).Replace(obj.Spec.Image)
			specs = append(specs, obj.Spec)
		}
	}
	if len(specs) < 5 {
		f.Fatalf("found %d objects in the documentation", len(specs))
	}
	return specs
}

// platform is an API server with two namespaces, and a reconciler on it. In one of them the
// platform accepts the images below allowed/, in the other one no image.
type platform struct {
	client     client.Client
	registry   *publish.InProcess
	reconciler *controllers.ArtifactRepositoryReconciler
	log        *journal
	// allowed are the digests of the accepted images.
	allowed []string
	// open and closed are the namespaces.
	open, closed string
	// status and external are of a published source in open.
	status   v1alpha1.ArtifactRepositoryStatus
	external sourcev1.ExternalArtifactStatus
	runs     int
}

// newPlatform starts the missing parts of a platform. Its API server is shared by all
// workers. No request leaves the machine: no name is resolved, and the proxy of the
// environment refuses connections.
func newPlatform(f *testing.F) *platform {
	f.Helper()
	for _, variable := range []string{"HTTP_PROXY", "HTTPS_PROXY"} {
		f.Setenv(variable, "http://127.0.0.1:9")
	}
	f.Setenv("NO_PROXY", "")
	ctx := f.Context()
	must := func(err error) {
		f.Helper()
		if err != nil {
			f.Fatal(err)
		}
	}
	must(server.start(ctx))
	p := &platform{client: server.client, registry: publish.Serve(), log: &journal{}}
	f.Cleanup(p.registry.Close)
	must(acceptAnySpec(ctx, p.client))
	must(install(ctx, p.client, "readable.yaml"))
	for _, image := range []string{"allowed/app:1", "allowed/app:2", "allowed/neighbour:1", "refused/app:1", "app:1"} {
		artifact, err := p.registry.Shelf().Flux(ctx, image, publish.Files{"app.yaml": "image: " + image + "\n"})
		must(err)
		digest, err := artifact.Digest()
		must(err)
		if strings.HasPrefix(image, "allowed/") {
			p.allowed = append(p.allowed, digest.String())
		}
	}
	var err error
	p.open, err = p.namespace(ctx, v1alpha1.ImagePattern(p.registry.Host()+"/allowed/**"))
	must(err)
	p.closed, err = p.namespace(ctx, v1alpha1.ImagePattern("ghcr.io/nobody/**"))
	must(err)
	must(p.assemble(f))
	var plain specimen
	plain.Spec.Image, plain.Spec.Tag = p.registry.Host()+"/allowed/app", "1"
	must(p.write(ctx, client.ObjectKey{Namespace: p.open, Name: "app"}, plain))
	plain.Spec.Image = p.registry.Host() + "/allowed/neighbour"
	must(p.write(ctx, client.ObjectKey{Namespace: p.open, Name: "neighbour"}, plain))
	must(p.reconcile(ctx, client.ObjectKey{Namespace: p.open, Name: "neighbour"}))
	must(p.reconcile(ctx, client.ObjectKey{Namespace: p.open, Name: "app"}))
	obj, external, err := p.seen(ctx, client.ObjectKey{Namespace: p.open, Name: "app"})
	must(err)
	if external == nil || external.Status.Artifact == nil {
		f.Fatalf("the source is not published: %v\n%s", obj.Status.Conditions, p.log)
	}
	p.status, p.external = obj.Status, external.Status
	return p
}

// acceptAnySpec removes all validation from the schema of a spec: stored objects may be of
// any age, and earlier schemas had fewer limits.
func acceptAnySpec(ctx context.Context, c client.Client) error {
	crd := &unstructured.Unstructured{}
	crd.SetGroupVersionKind(schema.GroupVersionKind{Group: "apiextensions.k8s.io", Version: "v1", Kind: "CustomResourceDefinition"})
	if err := c.Get(ctx, client.ObjectKey{Name: "artifactrepositories." + v1alpha1.Group}, crd); err != nil {
		return err
	}
	version := crd.Object["spec"].(map[string]any)["versions"].([]any)[0].(map[string]any)
	properties := version["schema"].(map[string]any)["openAPIV3Schema"].(map[string]any)["properties"].(map[string]any)
	anything := map[string]any{"type": "object", "x-kubernetes-preserve-unknown-fields": true}
	if reflect.DeepEqual(properties["spec"], anything) {
		return nil
	}
	properties["spec"] = anything
	if err := c.Update(ctx, crd); err != nil && !apierrors.IsConflict(err) { // another worker was faster
		return err
	}
	nothing := &v1alpha1.ArtifactRepository{ObjectMeta: metav1.ObjectMeta{Namespace: metav1.NamespaceDefault, Name: "probe"}}
	for ctx.Err() == nil {
		if err := c.Create(ctx, nothing.DeepCopy(), client.DryRunAll); err == nil {
			return nil
		}
	}
	return ctx.Err()
}

// namespace creates a namespace with some accepted images.
func (p *platform) namespace(ctx context.Context, images v1alpha1.ImagePattern) (string, error) {
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{
		GenerateName: "fuzz-", Labels: map[string]string{v1alpha1.UseAsSource: v1alpha1.UseAsSourceEnabled},
	}}
	if err := p.client.Create(ctx, namespace); err != nil {
		return "", err
	}
	labels := map[string]string{sceneLabel: "fuzz"}
	policy := &v1alpha1.TrustPolicy{ObjectMeta: metav1.ObjectMeta{Name: namespace.Name, Labels: labels}, Spec: v1alpha1.TrustPolicySpec{
		NamespaceSelector: metav1.LabelSelector{MatchLabels: map[string]string{corev1.LabelMetadataName: namespace.Name}},
		Images:            []v1alpha1.ImagePattern{images},
	}}
	return namespace.Name, p.client.Create(ctx, policy)
}

// ownPolicies is a reader without the TrustPolicies of other tests.
type ownPolicies struct{ client.Reader }

// List implements client.Reader.
func (r ownPolicies) List(ctx context.Context, list client.ObjectList, options ...client.ListOption) error {
	return r.Reader.List(ctx, list, append(options, client.MatchingLabels{sceneLabel: "fuzz"})...)
}

// assemble makes the reconciler, which reads from the API server itself: it sees writes of a
// test at once.
func (p *platform) assemble(f *testing.F) error {
	mgr, err := ctrl.NewManager(server.config, ctrl.Options{Scheme: scheme(), Logger: p.log.logger(), HealthProbeBindAddress: "0"})
	if err != nil {
		return err
	}
	ours, err := controllers.NewMetrics(prometheus.NewRegistry())
	if err != nil {
		return err
	}
	unresolved := &net.Resolver{PreferGo: true, Dial: func(context.Context, string, string) (net.Conn, error) {
		return nil, errors.New("no name is resolved here")
	}}
	access, err := registry.NewClient(registry.Options{Resolver: unresolved})
	if err != nil {
		return err
	}
	local, err := store.Open(store.Options{Root: f.TempDir(), AdvertisedAddress: "artifacts.example.com", RetentionTTL: time.Minute, RetentionRecords: 2})
	if err != nil {
		return err
	}
	f.Cleanup(func() { _ = local.Close() })
	limits := format.DefaultLimits()
	replica, err := store.NewReplica(local, store.PeerOptions{Address: ":0", MaxBytes: limits.ArtifactBytes})
	if err != nil {
		return err
	}
	trusted := controllers.NewTrust(controllers.TrustReader{Client: ownPolicies{p.client}, Secrets: p.client, Live: p.client}, metav1.NamespaceSystem, trust.Options{})
	snapshots := controllers.Snapshots{Client: p.client, Rules: source.Rules{NamespaceOptIn: source.NamespaceOptInLabel}, Trust: trusted}
	p.reconciler = &controllers.ArtifactRepositoryReconciler{
		Snapshots:    snapshots,
		ImageObjects: controllers.ImageObjects{Client: p.client, Live: p.client},
		Evaluator: &controllers.Evaluator{
			Rules: snapshots.Rules, Snapshots: snapshots, Store: replica, Trust: trusted, Content: format.Options{Limits: limits},
			Pipeline: &pipeline.Pipeline{Throttle: throttle.New(1), Registry: access, Credentials: credentials.New(credentials.Options{Client: p.client}), Bridge: bridge.New(replica, time.Now)},
		},
		Writer:  &controllers.Writer{Client: p.client, Live: p.client, Store: replica},
		Backoff: helper.GetRateLimiter(helper.RateLimiterOptions{MinRetryDelay: time.Millisecond, MaxRetryDelay: time.Millisecond}),
		Report: &controllers.Report{
			Events: &controllers.Events{Recorder: &record.FakeRecorder{}, Metrics: helper.NewMetrics(mgr, fluxmetrics.NewRecorder())}, Metrics: ours,
		},
	}
	options := controller.Options{SkipNameValidation: new(true)}
	return p.reconciler.SetupWithManager(mgr, options, nil) // it never starts, and divides the workers
}

// write stores an object and its Secrets, as a tenant does.
func (p *platform) write(ctx context.Context, key client.ObjectKey, s specimen) error {
	obj := &v1alpha1.ArtifactRepository{}
	obj.Namespace, obj.Name = key.Namespace, key.Name
	err := p.client.Get(ctx, key, obj)
	if client.IgnoreNotFound(err) != nil {
		return err
	}
	obj.Spec, obj.Annotations, obj.Labels = s.Spec, map[string]string{}, map[string]string{}
	if s.Metadata.Token != "" {
		obj.Annotations[meta.ReconcileRequestAnnotation] = s.Metadata.Token
	}
	if s.Metadata.Annotation != "" {
		obj.Annotations[v1alpha1.UseAsSource] = s.Metadata.Annotation
	}
	if s.Metadata.LabelKey != "" {
		obj.Labels[s.Metadata.LabelKey] = s.Metadata.LabelValue
	}
	if err != nil {
		return p.client.Create(ctx, obj)
	}
	return p.client.Update(ctx, obj)
}

// writeSecrets stores the Secrets of a specimen.
func (p *platform) writeSecrets(ctx context.Context, namespace string, s specimen) error {
	login := &corev1.Secret{Type: corev1.SecretTypeDockerConfigJson, Data: map[string][]byte{corev1.DockerConfigJsonKey: []byte(s.Login)}}
	other := &corev1.Secret{Data: s.data()}
	for name, secret := range map[string]*corev1.Secret{"login": login, "secret": other} {
		if len(secret.Data[corev1.DockerConfigJsonKey]) == 0 && name == "login" || len(secret.Data) == 0 {
			continue
		}
		secret.Namespace, secret.Name = namespace, name
		err := p.client.Update(ctx, secret)
		if apierrors.IsNotFound(err) {
			err = p.client.Create(ctx, secret)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// published makes an object a published source.
func (p *platform) published(ctx context.Context, key client.ObjectKey) error {
	obj, external, err := p.seen(ctx, key)
	if err != nil {
		return err
	}
	in := func(status any, into any) error {
		text, err := yaml.Marshal(status)
		if err != nil {
			return err
		}
		return yaml.Unmarshal([]byte(strings.ReplaceAll(string(text), p.open, key.Namespace)), into)
	}
	obj.Status = v1alpha1.ArtifactRepositoryStatus{}
	if err := in(p.status, &obj.Status); err != nil {
		return err
	}
	if err := p.client.Status().Update(ctx, obj); err != nil {
		return err
	}
	if external == nil {
		external = &sourcev1.ExternalArtifact{}
		external.Namespace, external.Name = key.Namespace, key.Name
		external.OwnerReferences = []metav1.OwnerReference{*metav1.NewControllerRef(obj, v1alpha1.GroupVersion.WithKind(v1alpha1.ArtifactRepositoryKind))}
		if err := p.client.Create(ctx, external); err != nil {
			return err
		}
	}
	if external.Status.Artifact != nil {
		return nil
	}
	if err := in(p.external, &external.Status); err != nil {
		return err
	}
	return p.client.Status().Update(ctx, external)
}

// seen returns a source as it is on the API server.
func (p *platform) seen(ctx context.Context, key client.ObjectKey) (*v1alpha1.ArtifactRepository, *sourcev1.ExternalArtifact, error) {
	obj, external := &v1alpha1.ArtifactRepository{}, &sourcev1.ExternalArtifact{}
	if err := p.client.Get(ctx, key, obj); err != nil {
		return nil, nil, err
	}
	err := p.client.Get(ctx, key, external)
	if apierrors.IsNotFound(err) {
		return obj, nil, nil
	}
	return obj, external, err
}

// reconcile reconciles an object until there is no reason to do it at once again.
func (p *platform) reconcile(ctx context.Context, key client.ObjectKey) error {
	ctx = ctrl.LoggerInto(ctx, p.log.logger())
	var err error
	for range 3 {
		var result ctrl.Result
		result, err = p.reconciler.Reconcile(ctx, ctrl.Request{NamespacedName: key})
		if err == nil && (result.RequeueAfter == 0 || result.RequeueAfter > time.Second) {
			return nil
		}
	}
	return err
}

// allocated returns how many bytes the process has allocated so far.
func allocated() uint64 {
	sample := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}}
	metrics.Read(sample)
	return sample[0].Value.Uint64()
}

// FuzzSpec reconciles any spec that a tenant can store, with any Secrets, while a source is
// published. The verdict of the platform counts for all of them: no refused image is
// published or stays so. No reconcile panics or takes long or much memory, and other sources
// are published as before.
func FuzzSpec(f *testing.F) {
	for _, seed := range seeds(f) {
		f.Add(seed.text())
	}
	p := newPlatform(f)
	f.Fuzz(func(t *testing.T, text []byte) { p.try(t, text) })
}

// try has one specimen reconciled.
func (p *platform) try(t *testing.T, text []byte) {
	s := parseSpecimen([]byte(strings.ReplaceAll(string(text), standIn, p.registry.Host())))
	if len(text) > 1<<20 || s.leavesTheMachine() {
		t.Skip("it cannot be stored, or is asked outside of the machine")
	}
	key := client.ObjectKey{Namespace: p.open, Name: "app"}
	if s.Refused {
		key.Namespace = p.closed
	}
	ctx := t.Context()
	if err := errors.Join(p.writeSecrets(ctx, key.Namespace, s), p.write(ctx, key, s)); err != nil {
		t.Skip(err) // the API server does not store it
	}
	if err := p.published(ctx, key); err != nil {
		t.Fatal(err)
	}
	start, bytes := time.Now(), allocated()
	err := p.reconcile(ctx, key)
	if took, allocations := time.Since(start), allocated()-bytes; took > mostTime || allocations > mostBytes {
		t.Errorf("it took %s and %d bytes", took, allocations)
	}
	obj, external, seenErr := p.seen(ctx, key)
	if seenErr != nil {
		t.Fatal(seenErr)
	}
	if said := p.log.String() + conditions.GetMessage(obj, meta.ReadyCondition); strings.Contains(said, "panic") {
		t.Errorf("a panic: %s", said)
	}
	p.log.forget()
	for _, artifact := range []*meta.Artifact{obj.Status.Artifact, artifactOf(external)} {
		switch {
		case artifact == nil:
		case s.Refused:
			t.Errorf("the platform refuses it, and it stays published: %s (%v)", artifact.Revision, err)
		case !slices.Contains(p.allowed, artifact.Metadata[v1alpha1.MetadataDigest]):
			t.Errorf("an image that the platform refuses is published: %s", artifact.Metadata)
		}
	}
	if p.runs++; p.runs%16 == 0 {
		p.checkNeighbour(t)
	}
}

// checkNeighbour expects another source to be published still.
func (p *platform) checkNeighbour(t *testing.T) {
	key, start := client.ObjectKey{Namespace: p.open, Name: "neighbour"}, time.Now()
	if err := p.reconcile(t.Context(), key); err != nil {
		t.Fatalf("another source cannot be reconciled: %v", err)
	}
	obj, external, err := p.seen(t.Context(), key)
	if err != nil || !conditions.IsReady(obj) || artifactOf(external) == nil || time.Since(start) > mostTime {
		t.Fatalf("another source is not as it was, after %s: %v %v", time.Since(start), err, obj.Status.Conditions)
	}
}

func artifactOf(external *sourcev1.ExternalArtifact) *meta.Artifact {
	if external == nil {
		return nil
	}
	return external.Status.Artifact
}
