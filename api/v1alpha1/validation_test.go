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

package v1alpha1_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/image-source/image-source-controller/api/v1alpha1"
	"github.com/image-source/image-source-controller/test/controlplane"
)

// server is an API server that knows our kinds and those of Flux. It is set
// before the first test runs.
var server client.Client

func TestMain(m *testing.M) {
	os.Exit(run(m))
}

func run(m *testing.M) (code int) {
	env, err := start()
	if err != nil {
		fmt.Fprintln(os.Stderr, "starting an API server:", err)
		return 1
	}
	defer func() {
		if err := env.Stop(); err != nil {
			fmt.Fprintln(os.Stderr, "stopping the API server:", err)
			code = max(code, 1)
		}
	}()
	return m.Run()
}

func start() (*controlplane.ControlPlane, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Minute)
	defer cancel()
	cp, err := controlplane.Start(ctx, controlplane.Options{
		APIServerOnly: true,
		CRDPaths:      []string{filepath.Join("..", "..", "config", "crd", "bases")},
		Progress:      os.Stderr,
	})
	if err != nil {
		return nil, err
	}
	if server, err = client.New(cp.RESTConfig(), client.Options{}); err != nil {
		return nil, errors.Join(err, cp.Stop())
	}
	return cp, nil
}

// create sends an ArtifactRepository with this spec to the API server, which
// answers as if it kept it.
func create(t *testing.T, spec string) (*unstructured.Unstructured, error) {
	t.Helper()
	obj := object(t, spec)
	return obj, server.Create(t.Context(), obj, client.DryRunAll)
}

func object(t *testing.T, spec string) *unstructured.Unstructured {
	t.Helper()
	obj := &unstructured.Unstructured{}
	if err := yaml.Unmarshal([]byte(spec), &obj.Object); err != nil {
		t.Fatalf("%v in\n%s", err, spec)
	}
	obj.Object = map[string]any{"spec": obj.Object}
	obj.SetGroupVersionKind(v1alpha1.GroupVersion.WithKind(v1alpha1.ArtifactRepositoryKind))
	obj.SetNamespace("default")
	obj.SetName("app")
	return obj
}

var digest = "sha256:" + strings.Repeat("a", 64)

func TestTheServerAccepts(t *testing.T) {
	for sentence, spec := range map[string]string{
		"a policy of the namespace":         `imagePolicyRef: {name: app}`,
		"a policy of the namespace, pinned": `{imagePolicyRef: {name: app}, digest: "` + digest + `"}`,
		"a tag":                             `{image: ghcr.io/org/app, tag: "1.0.0"}`,
		"a tag with every character that tags may have": `{image: ghcr.io/org/app, tag: _Main-1.0_rc.1}`,
		"a digest":                        `{image: ghcr.io/org/app, digest: "` + digest + `"}`,
		"a digest, and what it is called": `{image: ghcr.io/org/app, tag: "1.0.0", digest: "` + digest + `"}`,
		"a range of versions":             `{image: ghcr.io/org/app, policy: {semver: {range: ">=1.0.0"}}}`,
		"a range of versions, pinned":     `{image: ghcr.io/org/app, policy: {semver: {range: 1.x}}, digest: "` + digest + `"}`,
		"the last of the alphabet":        `{image: ghcr.io/org/app, policy: {alphabetical: {order: desc}}}`,
		"an order that is not spelt out":  `{image: ghcr.io/org/app, policy: {alphabetical: {}}}`,
		"the highest number in a part of the tags": `
image: ghcr.io/org/app
filterTags: {pattern: '^main-[a-f0-9]+-(?P<ts>[0-9]+)$', extract: '$ts'}
policy: {numerical: {order: asc}}`,
		"the prefix that Flux's sources have": `{image: oci://ghcr.io/org/app, tag: "1"}`,
		"a host with a port":                  `{image: localhost:5000/org/app, tag: "1"}`,
		"a host with a port and a prefix":     `{image: oci://registry.example.com:5000/app, tag: "1"}`,
		"an address of four numbers":          `{image: 10.0.0.1:5000/app, tag: "1"}`,
		"an IPv6 address with a port":         `{image: "[fd00::1]:5000/org/app", tag: "1"}`,
		"an IPv6 address":                     `{image: "oci://[::1]/app", tag: "1"}`,
		"a name without a host":               `{image: nginx, tag: "1"}`,
		"a name with an underscore":           `{image: org/my_app, tag: "1"}`,
		"a name with every separator":         `{image: ghcr.io/my-org/a.b_c__d--e, tag: "1"}`,
		"all access fields": `
image: ghcr.io/org/app
tag: "1"
provider: generic
secretRef: {name: login}
serviceAccountName: puller
certSecretRef: {name: certs}
proxySecretRef: {name: proxy}
insecure: true`,
		"access fields beside a policy":     `{image: ghcr.io/org/app, policy: {semver: {range: "*"}}, provider: aws}`,
		"settings of the content":           `{imagePolicyRef: {name: app}, ignore: "*.md", format: Flux, platform: linux/arm64/v8, layerSelector: {mediaType: a/b, operation: copy}}`,
		"an interval and a timeout":         `{imagePolicyRef: {name: app}, interval: 1h30m, timeout: 1m30s, suspend: true}`,
		"a timeout in fractions of seconds": `{imagePolicyRef: {name: app}, timeout: 0.5s}`,
		"the longest interval":              `{imagePolicyRef: {name: app}, interval: 8759h60m}`,
		"a timeout of almost an hour":       `{imagePolicyRef: {name: app}, timeout: 59m59.999s}`,
		"the shortest timeout":              `{imagePolicyRef: {name: app}, timeout: 1ms}`,
	} {
		t.Run(sentence, func(t *testing.T) {
			obj, err := create(t, spec)
			NewWithT(t).Expect(err).NotTo(HaveOccurred())
			var typed v1alpha1.ArtifactRepository
			content, err := yaml.Marshal(obj.Object)
			NewWithT(t).Expect(err).NotTo(HaveOccurred())
			NewWithT(t).Expect(yaml.UnmarshalStrict(content, &typed)).To(Succeed(), "what the server keeps is what the types know")
		})
	}
}

func TestTheServerRefuses(t *testing.T) {
	const (
		exactlyOne  = "set exactly one of image and imagePolicyRef"
		imageOnly   = "tag, policy and filterTags go with image only"
		accessOnly  = "go with image only: with imagePolicyRef they are set on the ImageRepository"
		noDefault   = "with image, set one of tag, digest and policy: there is no default tag"
		tagOrPolicy = "tag and policy exclude each other"
		notATag     = "tag must be a tag such as v1.0.0"
		tagDigest   = "tag must not contain a digest: put it into spec.digest"
		notADigest  = "digest must be sha256: and 64 hexadecimal digits in lower case"
		platforms   = "platform must be os/architecture or os/architecture/variant"
		filterNeeds = "filterTags needs policy"
		oneOrder    = "set exactly one of policy.semver, policy.alphabetical and policy.numerical"
		noDigest    = "image must not contain a digest: put it into spec.digest"
		noTag       = "image must not contain a tag: put it into spec.tag"
		noName      = "image must be the name of a repository such as ghcr.io/org/app"
		noSecret    = "must each name a Secret of this namespace"
		noPolicy    = "imagePolicyRef.name must name an ImagePolicy of this namespace"
	)
	for sentence, c := range map[string]struct {
		spec  string
		words []string
		// alone tells that nothing else is said: the message names what is wrong.
		alone bool
	}{
		"nothing at all":           {spec: `{}`, words: []string{exactlyOne}, alone: true},
		"nothing but a digest":     {spec: `digest: "` + digest + `"`, words: []string{exactlyOne}, alone: true},
		"an image and a policy":    {spec: `{image: ghcr.io/org/app, tag: "1", imagePolicyRef: {name: app}}`, words: []string{exactlyOne, imageOnly}},
		"an image beside a policy": {spec: `{image: ghcr.io/org/app, digest: "` + digest + `", imagePolicyRef: {name: app}}`, words: []string{exactlyOne}, alone: true},

		"a policy without a name":    {spec: `imagePolicyRef: {}`, words: []string{"imagePolicyRef.name", "Required"}},
		"a policy of an empty name":  {spec: `imagePolicyRef: {name: ""}`, words: []string{noPolicy}, alone: true},
		"a tag beside a policy":      {spec: `{imagePolicyRef: {name: app}, tag: "1"}`, words: []string{imageOnly, "set digest to pin one"}, alone: true},
		"an order beside a policy":   {spec: `{imagePolicyRef: {name: app}, policy: {semver: {range: "*"}}}`, words: []string{imageOnly}, alone: true},
		"a filter beside a policy":   {spec: `{imagePolicyRef: {name: app}, filterTags: {pattern: a}}`, words: []string{imageOnly}},
		"a provider with a policy":   {spec: `{imagePolicyRef: {name: app}, provider: aws}`, words: []string{accessOnly}, alone: true},
		"a login with a policy":      {spec: `{imagePolicyRef: {name: app}, secretRef: {name: login}}`, words: []string{accessOnly}, alone: true},
		"an account with a policy":   {spec: `{imagePolicyRef: {name: app}, serviceAccountName: puller}`, words: []string{accessOnly}, alone: true},
		"certificates with a policy": {spec: `{imagePolicyRef: {name: app}, certSecretRef: {name: certs}}`, words: []string{accessOnly}, alone: true},
		"a proxy with a policy":      {spec: `{imagePolicyRef: {name: app}, proxySecretRef: {name: proxy}}`, words: []string{accessOnly}, alone: true},
		"plain HTTP with a policy":   {spec: `{imagePolicyRef: {name: app}, insecure: true}`, words: []string{accessOnly}, alone: true},

		"an image and nothing that picks":       {spec: `image: ghcr.io/org/app`, words: []string{noDefault}, alone: true},
		"an image and a filter":                 {spec: `{image: ghcr.io/org/app, filterTags: {pattern: a}}`, words: []string{noDefault, filterNeeds}},
		"a tag and an order":                    {spec: `{image: ghcr.io/org/app, tag: "1", policy: {semver: {range: "*"}}}`, words: []string{tagOrPolicy}, alone: true},
		"a tag, a digest and an order":          {spec: `{image: ghcr.io/org/app, tag: "1", digest: "` + digest + `", policy: {semver: {range: "*"}}}`, words: []string{tagOrPolicy}, alone: true},
		"a tag and a filter":                    {spec: `{image: ghcr.io/org/app, tag: "1", filterTags: {pattern: a}}`, words: []string{filterNeeds}, alone: true},
		"a digest and a filter":                 {spec: `{image: ghcr.io/org/app, digest: "` + digest + `", filterTags: {pattern: a}}`, words: []string{filterNeeds}, alone: true},
		"an order of no kind":                   {spec: `{image: ghcr.io/org/app, policy: {}}`, words: []string{oneOrder}, alone: true},
		"an order of two kinds":                 {spec: `{image: ghcr.io/org/app, policy: {semver: {range: "*"}, numerical: {order: asc}}}`, words: []string{oneOrder}, alone: true},
		"an order of three kinds":               {spec: `{image: ghcr.io/org/app, policy: {semver: {range: "*"}, numerical: {}, alphabetical: {}}}`, words: []string{oneOrder}, alone: true},
		"an order that is neither asc nor desc": {spec: `{image: ghcr.io/org/app, policy: {numerical: {order: up}}}`, words: []string{"policy.numerical.order", `"asc", "desc"`}},
		"versions without a range":              {spec: `{image: ghcr.io/org/app, policy: {semver: {}}}`, words: []string{"policy.semver.range", "Required"}},

		"an image with a tag":                  {spec: `{image: "ghcr.io/org/app:1.0.0", tag: "1"}`, words: []string{noTag}, alone: true},
		"an image with a tag and no host":      {spec: `{image: "nginx:1.0.0", tag: "1"}`, words: []string{noTag}, alone: true},
		"an image with a port and a tag":       {spec: `{image: "oci://localhost:5000/app:1.0.0", tag: "1"}`, words: []string{noTag}, alone: true},
		"an image with an empty tag":           {spec: `{image: "ghcr.io/org/app:", tag: "1"}`, words: []string{noTag}, alone: true},
		"an image with a digest":               {spec: `{image: "ghcr.io/org/app@` + digest + `", tag: "1"}`, words: []string{noDigest}, alone: true},
		"an image with a port and a digest":    {spec: `{image: "localhost:5000/app@` + digest + `", tag: "1"}`, words: []string{noDigest}, alone: true},
		"an image with a tag and a digest":     {spec: `{image: "ghcr.io/org/app:1.0.0@` + digest + `", tag: "1"}`, words: []string{noDigest, noTag}},
		"an image of nothing":                  {spec: `{image: "", tag: "1"}`, words: []string{"spec.image", "should be at least 1 chars long"}},
		"an image that is too long":            {spec: `{image: ghcr.io/` + strings.Repeat("a", 254) + `, tag: "1"}`, words: []string{"spec.image", "may not be more than 261"}},
		"an image that is a web address":       {spec: `{image: "https://ghcr.io/org/app", tag: "1"}`, words: []string{noName, "no scheme but oci://"}, alone: true},
		"an image with docker's scheme":        {spec: `{image: "docker://ghcr.io/org/app", tag: "1"}`, words: []string{noName}, alone: true},
		"an image with two schemes":            {spec: `{image: "oci://https://ghcr.io/org/app", tag: "1"}`, words: []string{noName}, alone: true},
		"an image whose scheme is in capitals": {spec: `{image: "OCI://ghcr.io/org/app", tag: "1"}`, words: []string{noName}, alone: true},
		"an image of a scheme only":            {spec: `{image: "oci://", tag: "1"}`, words: []string{noName}, alone: true},
		"an image in capitals":                 {spec: `{image: ghcr.io/Org/App, tag: "1"}`, words: []string{noName, "lower case"}, alone: true},
		"an image with a space":                {spec: `{image: "ghcr.io/org/my app", tag: "1"}`, words: []string{noName}, alone: true},
		"an image with a line break":           {spec: "{image: \"ghcr.io/org/app\\n\", tag: \"1\"}", words: []string{noName}, alone: true},
		"an image that climbs":                 {spec: `{image: ghcr.io/org/../app, tag: "1"}`, words: []string{noName}, alone: true},
		"an image that stays in place":         {spec: `{image: ghcr.io/org/./app, tag: "1"}`, words: []string{noName}, alone: true},
		"an image with two dots in a part":     {spec: `{image: ghcr.io/org/a..b, tag: "1"}`, words: []string{noName}, alone: true},
		"an image with a mixed separator":      {spec: `{image: ghcr.io/org/a-.b, tag: "1"}`, words: []string{noName}, alone: true},
		"an image with three underscores":      {spec: `{image: ghcr.io/org/a___b, tag: "1"}`, words: []string{noName}, alone: true},
		"an image with an escape":              {spec: `{image: "ghcr.io/org/%2e%2e/app", tag: "1"}`, words: []string{noName}, alone: true},
		"an image with a backslash":            {spec: `{image: 'ghcr.io/org\..\app', tag: "1"}`, words: []string{noName}, alone: true},
		"an image whose host ends in a dot":    {spec: `{image: ghcr.io./org/app, tag: "1"}`, words: []string{noName}, alone: true},
		"an image whose port begins with 0":    {spec: `{image: "ghcr.io:0443/org/app", tag: "1"}`, words: []string{noName}, alone: true},
		"an image of a host with _":            {spec: `{image: a_b.example/app, tag: "1"}`, words: []string{noName}, alone: true},
		"an image without a port":              {spec: `{image: "ghcr.io:/org/app", tag: "1"}`, words: []string{noName}, alone: true},
		"an image in letters that look alike":  {spec: `{image: "ghcr.iо/org/app", tag: "1"}`, words: []string{noName}, alone: true},
		"an image with a slash at its end":     {spec: `{image: ghcr.io/org/app/, tag: "1"}`, words: []string{noName}, alone: true},
		"an image with two slashes":            {spec: `{image: ghcr.io//app, tag: "1"}`, words: []string{noName}, alone: true},
		"an image with a query":                {spec: `{image: "ghcr.io/org/app?a=b", tag: "1"}`, words: []string{noName}, alone: true},
		"an image with a port that is none":    {spec: `{image: "localhost:http/app", tag: "1"}`, words: []string{noName}, alone: true},
		"an image with somebody's name in it":  {spec: `{image: "user:password@ghcr.io/app", tag: "1"}`, words: []string{noDigest}},
		"a tag of nothing":                     {spec: `{image: ghcr.io/org/app, tag: ""}`, words: []string{"spec.tag"}},
		"a tag that starts with a dot":         {spec: `{image: ghcr.io/org/app, tag: ".1"}`, words: []string{notATag}, alone: true},
		"a tag that is a path":                 {spec: `{image: ghcr.io/org/app, tag: "../1"}`, words: []string{notATag}, alone: true},
		"a tag of 129 characters":              {spec: `{image: ghcr.io/org/app, tag: ` + strings.Repeat("a", 129) + `}`, words: []string{notATag, "at most 128"}, alone: true},
		"a tag with a digest":                  {spec: `{image: ghcr.io/org/app, tag: "v1@` + digest + `"}`, words: []string{tagDigest}, alone: true},
		"a long tag with a digest":             {spec: `{image: ghcr.io/org/app, tag: "` + strings.Repeat("a", 128) + "@" + digest + `"}`, words: []string{tagDigest}, alone: true},
		"a tag with a digest, beside it":       {spec: `{image: ghcr.io/org/app, tag: "v1@` + digest + `", digest: "` + digest + `"}`, words: []string{tagDigest}, alone: true},
		"a tag that is a digest":               {spec: `{image: ghcr.io/org/app, tag: "` + digest + `"}`, words: []string{tagDigest}, alone: true},
		"a tag of a whole reference":           {spec: `{image: ghcr.io/org/app, tag: "ghcr.io/org/app:v1"}`, words: []string{notATag}, alone: true},
		"a tag with the plus sign of a chart":  {spec: `{image: ghcr.io/org/app, tag: "1.0.0+up1"}`, words: []string{notATag, "Helm writes _ for the + of a version"}, alone: true},
		"a digest with a tag":                  {spec: `{image: ghcr.io/org/app, digest: "v1@` + digest + `"}`, words: []string{notADigest, "put a tag into spec.tag"}, alone: true},
		"a digest of nothing":                  {spec: `{image: ghcr.io/org/app, digest: ""}`, words: []string{"spec.digest"}},
		"a digest without its algorithm":       {spec: `{image: ghcr.io/org/app, digest: ` + strings.Repeat("a", 64) + `}`, words: []string{notADigest}, alone: true},
		"a digest that is cut":                 {spec: `{image: ghcr.io/org/app, digest: "sha256:abc"}`, words: []string{notADigest}, alone: true},
		"a digest in capitals":                 {spec: `{image: ghcr.io/org/app, digest: "sha256:` + strings.Repeat("A", 64) + `"}`, words: []string{notADigest}, alone: true},
		"a digest of another algorithm":        {spec: `{image: ghcr.io/org/app, digest: "sha512:` + strings.Repeat("a", 128) + `"}`, words: []string{notADigest}, alone: true},
		"a login of an empty name":             {spec: `{image: ghcr.io/org/app, tag: "1", secretRef: {name: ""}}`, words: []string{noSecret}, alone: true},
		"certificates of an empty name":        {spec: `{image: ghcr.io/org/app, tag: "1", certSecretRef: {name: ""}}`, words: []string{noSecret}, alone: true},
		"a proxy of an empty name":             {spec: `{image: ghcr.io/org/app, tag: "1", proxySecretRef: {name: ""}}`, words: []string{noSecret}, alone: true},
		"a login without a name":               {spec: `{image: ghcr.io/org/app, tag: "1", secretRef: {}}`, words: []string{"spec.secretRef.name", "Required"}},
		"a cloud that is not known":            {spec: `{image: ghcr.io/org/app, tag: "1", provider: alibaba}`, words: []string{"spec.provider", `"generic", "aws", "azure", "gcp"`}},
		"a format that is not known":           {spec: `{imagePolicyRef: {name: app}, format: Zip}`, words: []string{"spec.format", `"Auto"`}},
		"a platform without an architecture":   {spec: `{imagePolicyRef: {name: app}, platform: linux}`, words: []string{platforms}, alone: true},
		"an operation that is not known":       {spec: `{imagePolicyRef: {name: app}, layerSelector: {operation: move}}`, words: []string{"spec.layerSelector.operation", `"extract", "copy"`}},
		"an interval without a unit":           {spec: `{imagePolicyRef: {name: app}, interval: "10"}`, words: []string{"interval must be a duration such as 10m"}, alone: true},
		"an interval below zero":               {spec: `{imagePolicyRef: {name: app}, interval: -10m}`, words: []string{"interval must be a duration such as 10m"}, alone: true},
		"a timeout of hours":                   {spec: `{imagePolicyRef: {name: app}, timeout: 1h}`, words: []string{"timeout must be a duration such as 90s", "less than 1h"}, alone: true},
		"an interval of less than a second":    {spec: `{imagePolicyRef: {name: app}, interval: 999ms}`, words: []string{"spec.interval", "at least 1s"}, alone: true},
		"an interval of nothing":               {spec: `{imagePolicyRef: {name: app}, interval: 0s}`, words: []string{"spec.interval", "at least 1s"}, alone: true},
		"an interval of more than a year":      {spec: `{imagePolicyRef: {name: app}, interval: 8760h1ms}`, words: []string{"spec.interval", "at most 8760h"}, alone: true},
		"an interval that no clock can hold":   {spec: `{imagePolicyRef: {name: app}, interval: 9999999999h}`, words: []string{"spec.interval", "at most 8760h"}, alone: true},
		"a timeout of sixty minutes":           {spec: `{imagePolicyRef: {name: app}, timeout: 60m}`, words: []string{"spec.timeout", "less than 1h"}, alone: true},
		"a timeout that no clock can hold":     {spec: `{imagePolicyRef: {name: app}, timeout: 9999999999999999999s}`, words: []string{"spec.timeout", "less than 1h"}, alone: true},
		"a timeout of nothing":                 {spec: `{imagePolicyRef: {name: app}, timeout: 0s}`, words: []string{"spec.timeout", "at least 1ms"}, alone: true},
		"an account with a name of a page":     {spec: `{image: ghcr.io/org/app, tag: "1", serviceAccountName: ` + strings.Repeat("a", 254) + `}`, words: []string{"spec.serviceAccountName", "253"}},
	} {
		t.Run(sentence, func(t *testing.T) {
			g := NewWithT(t)
			_, err := create(t, c.spec)
			g.Expect(apierrors.IsInvalid(err)).To(BeTrue(), "%v", err)
			for _, word := range c.words {
				g.Expect(err.Error()).To(ContainSubstring(word))
			}
			if c.alone {
				var status apierrors.APIStatus
				g.Expect(errors.As(err, &status)).To(BeTrue())
				g.Expect(status.Status().Details.Causes).To(HaveLen(1), err.Error())
			}
		})
	}
}

// An object without a spec asks for nothing, which is not the same as asking
// for what cannot be.
func TestTheServerRefusesAnObjectWithoutASpec(t *testing.T) {
	g := NewWithT(t)
	obj := object(t, `{}`)
	delete(obj.Object, "spec")
	err := server.Create(t.Context(), obj, client.DryRunAll)
	g.Expect(apierrors.IsInvalid(err)).To(BeTrue(), "%v", err)
	g.Expect(err.Error()).To(ContainSubstring("spec: Required value"))
}

// What is there may become any other form in one edit: none is for good.
func TestTheServerLetsAFormBecomeAnother(t *testing.T) {
	g := NewWithT(t)
	obj := object(t, `imagePolicyRef: {name: app}`)
	g.Expect(server.Create(t.Context(), obj)).To(Succeed())
	t.Cleanup(func() {
		NewWithT(t).Expect(server.Delete(context.WithoutCancel(t.Context()), obj)).To(Succeed())
	})
	for _, spec := range []string{
		`{image: ghcr.io/org/app, tag: "1"}`,
		`{image: ghcr.io/org/app, policy: {semver: {range: 1.x}}}`,
		`{image: ghcr.io/org/app, policy: {semver: {range: 1.x}}, digest: "` + digest + `"}`,
		`{image: ghcr.io/org/app, digest: "` + digest + `"}`,
		`{imagePolicyRef: {name: app}, digest: "` + digest + `"}`,
		`{imagePolicyRef: {name: app}}`,
	} {
		obj.Object["spec"] = object(t, spec).Object["spec"]
		g.Expect(server.Update(t.Context(), obj)).To(Succeed(), spec)
	}
	obj.Object["spec"] = map[string]any{}
	g.Expect(apierrors.IsInvalid(server.Update(t.Context(), obj))).To(BeTrue())
}
