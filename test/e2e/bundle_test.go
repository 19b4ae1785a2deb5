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
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/crane"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	. "github.com/onsi/gomega"
	cosignkeys "github.com/sigstore/cosign/v3/pkg/cosign"
	ociremote "github.com/sigstore/cosign/v3/pkg/oci/remote"
	ctypes "github.com/sigstore/cosign/v3/pkg/types"
	corev1 "k8s.io/api/core/v1"

	"github.com/fluxcd/pkg/apis/meta"
	"github.com/fluxcd/pkg/runtime/conditions"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"

	"github.com/image-source/image-source-controller/api/v1alpha1"
	"github.com/image-source/image-source-controller/test/controlplane"
	"github.com/image-source/image-source-controller/test/publish"
)

// bundler is the command line in a folder of its own.
type bundler struct {
	*tenant
	binary, dir string
}

// buildBundler builds the command line as the Makefile does.
func buildBundler(t *testing.T) (binary string) {
	t.Helper()
	g := NewWithT(t)
	root, err := controlplane.Root()
	g.Expect(err).NotTo(HaveOccurred())
	binary = filepath.Join(t.TempDir(), "flux-bundle")
	command := exec.CommandContext(t.Context(), "go", "build", "-trimpath", "-o", binary, "./cmd/flux-bundle")
	command.Dir = root
	command.Env = append(os.Environ(), "CGO_ENABLED=0")
	output, err := command.CombinedOutput()
	g.Expect(err).NotTo(HaveOccurred(), string(output))
	return binary
}

// bundlePassword opens the keys of a bundler.
const bundlePassword = "correct horse"

// flux runs the command and returns what it prints on standard output.
func (b *bundler) flux(args ...string) string {
	b.Helper()
	out, err := b.try(args...)
	b.Expect(err).NotTo(HaveOccurred())
	return out
}

// try is flux for what may fail: then the error is what it says.
func (b *bundler) try(args ...string) (string, error) {
	command := exec.CommandContext(b.Context(), b.binary, args...)
	command.Dir = b.dir
	command.Env = append(os.Environ(), "COSIGN_PASSWORD="+bundlePassword, "HOME="+b.dir, "DOCKER_CONFIG="+b.dir)
	var said bytes.Buffer
	command.Stderr = &said
	out, err := command.Output()
	if err != nil {
		err = fmt.Errorf("flux-bundle %s: %w: %s", strings.Join(args, " "), err, said.String())
	}
	return strings.TrimSpace(string(out)), err
}

// write writes the folder to deploy.
func (b *bundler) write(version string) {
	b.Helper()
	dir := filepath.Join(b.dir, "deploy")
	b.Expect(os.MkdirAll(dir, 0o755)).To(Succeed())
	for name, content := range map[string]string{
		"kustomization.yaml": "resources:\n- app.yaml\n",
		"app.yaml":           configMap("shop", version)["deploy/app.yaml"],
	} {
		b.Expect(os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600)).To(Succeed())
	}
}

// guide applies the YAML of the guide as it is, but for what a test must change:
// the namespace, the registry, and how often it is looked at.
func (b *bundler) guide() {
	b.Helper()
	root, err := controlplane.Root()
	b.Expect(err).NotTo(HaveOccurred())
	text, err := os.ReadFile(filepath.Join(root, "docs", "guides", "bundle.md"))
	b.Expect(err).NotTo(HaveOccurred())
	blocks := fence.FindAllStringSubmatch(string(text), -1)
	b.Expect(blocks).To(HaveLen(2))
	for _, block := range blocks {
		b.apply(strings.NewReplacer(
			"namespace: apps", "namespace: "+b.namespace,
			"targetNamespace: apps", "targetNamespace: "+b.namespace,
			"image: ghcr.io/example/", "insecure: true\n  image: "+env.Registry().Host()+"/"+b.namespace+"/",
			"interval: 10m", "interval: 1s",
		).Replace(block[1]))
	}
}

// TestTheWholeWayOfABundle follows the guide with the command line alone: a key
// pair, a signed bundle, a source that verifies, and a deployment.
func TestTheWholeWayOfABundle(t *testing.T) {
	t.Parallel()
	n := newTenant(t, v1alpha1.UseAsSourceEnabled)
	b := &bundler{tenant: n, binary: buildBundler(t), dir: n.TempDir()}
	b.flux("generate-key-pair")
	n.kubectl("create", "secret", "generic", "release-keys", "--from-file="+filepath.Join(b.dir, "cosign.pub"))
	push := func(version string, args ...string) (digest, layer string) {
		b.write(version)
		var pushed struct {
			Digest string
			Layer  struct{ Digest string }
		}
		out := b.flux(append([]string{"-f", "deploy", "-t", n.ref("shop-deploy") + ":" + version, "-o", "json"}, args...)...)
		n.Expect(json.Unmarshal([]byte(out), &pushed)).To(Succeed())
		return pushed.Digest, pushed.Layer.Digest
	}
	digest, layer := push("1.0.0", "-s", "cosign.key")
	b.guide()
	artifact := n.published("shop", "1.0.0@"+digest)
	n.Expect(artifact.Digest).To(Equal(layer), "the controller serves another archive than was pushed")
	n.kustomized("shop", "1.0.0")
	n.deployed("shop", "1.0.0")
	record := get(n, "shop", &v1alpha1.ArtifactRepository{})
	n.Expect(conditions.IsTrue(record, v1alpha1.SourceVerifiedCondition)).To(BeTrue())

	push("1.1.0")
	n.notReady("shop", v1alpha1.ReasonVerificationError)
	n.deployed("shop", "1.0.0")
	next, _ := push("1.1.0", "-s", "cosign.key")
	n.published("shop", "1.1.0@"+next)
	n.deployed("shop", "1.1.0")
}

// TestALayerIsUploadedOnceForAllRepositoriesOfARegistry pushes to two repositories
// of CNCF Distribution, which mounts in one what the other has.
func TestALayerIsUploadedOnceForAllRepositoriesOfARegistry(t *testing.T) {
	t.Parallel()
	n := newTenant(t, "")
	b := &bundler{tenant: n, binary: buildBundler(t), dir: n.TempDir()}
	b.write("1.0.0")
	b.flux("-f", "deploy", "-t", n.ref("shop")+":1.0.0", "-t", n.ref("mirror")+":1.0.0")
	uploads := func(image string) (statuses map[string]int) {
		requests, err := env.Registry().Requests()
		n.Expect(err).NotTo(HaveOccurred())
		statuses = map[string]int{}
		for _, r := range requests {
			path, query, _ := strings.Cut(r.Path, "?")
			switch {
			case !strings.HasPrefix(path, "/v2/"+n.image(image)+"/blobs/uploads/"):
			case r.Method == http.MethodPost && strings.Contains(query, "mount="):
				statuses[fmt.Sprint("mount ", r.Status)]++
			case r.Method == http.MethodPatch:
				statuses["bytes"]++
			}
		}
		return statuses
	}
	// Each repository gets the config, and the first the layer. A line of the log is
	// written after the answer.
	n.Eventually(uploads, patience).WithArguments("shop").Should(Equal(map[string]int{"bytes": 2}))
	n.Eventually(uploads, patience).WithArguments("mirror").Should(Equal(map[string]int{"mount 201": 1, "bytes": 1}))
	b.flux("pull", n.ref("mirror")+":1.0.0", "-o", "pulled")
	n.Expect(filepath.Join(b.dir, "pulled", "app.yaml")).To(BeAnExistingFile())
}

// TestEverybodyVerifiesABundle signs with the command line, in a registry with
// the list of referrers and in one without, and holds that the cosign command,
// source-controller and this project accept it, and that each of them refuses
// another key and a folder with a changed byte.
func TestEverybodyVerifiesABundle(t *testing.T) {
	t.Parallel()
	binary := buildBundler(t)
	listed := publish.ServeReferrers()
	t.Cleanup(listed.Close)
	for place, registry := range map[string]publish.Registry{
		"listed by the registry": {Host: listed.Host()},
		"under a tag":            {Host: env.Registry().Host()},
	} {
		for format, signed := range map[string]signedBundle{
			"a bundle":           {flag: "--new-bundle-format", sign: (*bundler).pushSigned, carry: (*bundler).carryBundle},
			"a legacy signature": {flag: "--new-bundle-format=false", sign: (*bundler).pushSignedLegacy, carry: (*bundler).carryLegacy},
		} {
			t.Run(format+" "+place, func(t *testing.T) {
				t.Parallel()
				n := newTenant(t, v1alpha1.UseAsSourceEnabled)
				signed.test(&bundler{tenant: n, binary: binary, dir: n.TempDir()}, registry)
			})
		}
	}
}

// signedBundle is a way to sign a bundle.
type signedBundle struct {
	// flag has the cosign command use this format, and no other.
	flag string
	// sign pushes the folder and leaves a signature of this format in a repository,
	// and none of another. It returns the digest.
	sign func(b *bundler, repository string) string
	// carry gives the signature of a digest to another, of another repository.
	carry func(b *bundler, from, to name.Digest)
}

func (s signedBundle) test(b *bundler, registry publish.Registry) {
	cosign := newCosignCommand(b.tenant)
	cosign.dir, cosign.password = b.dir, bundlePassword
	for _, key := range []string{"cosign", "other"} {
		b.flux("generate-key-pair", "--output-key-prefix", key)
	}
	for secret, file := range map[string]string{"good": "cosign.pub", "stranger": "other.pub"} {
		public, err := os.ReadFile(filepath.Join(b.dir, file))
		b.Expect(err).NotTo(HaveOccurred())
		b.secret(secret, corev1.SecretTypeOpaque, map[string]string{"cosign.pub": string(public)})
	}
	verify := func(key, repository string) error {
		_, err := cosign.try("verify", "--key="+key, "--insecure-ignore-tlog=true", s.flag, "--allow-http-registry", repository+":1.0.0")
		return err
	}

	shop := registry.Host + "/" + b.image("shop")
	b.write("1.0.0")
	digest := s.sign(b, shop)
	b.Expect(verify("cosign.pub", shop)).To(Succeed())
	b.Expect(verify("other.pub", shop)).NotTo(Succeed())
	for _, secret := range []string{"good", "stranger"} {
		b.demand(secret, shop, signedBy(secret))
	}
	b.accepts("good", "1.0.0@"+digest, "key cosign.pub (sha256:")
	b.rejects("stranger")

	b.write("1.0.0 with a changed byte")
	changed := registry.Host + "/" + b.image("changed")
	_, other, _ := strings.Cut(b.flux("-f", "deploy", "-t", changed+":1.0.0"), "@")
	b.Expect(verify("cosign.pub", changed)).NotTo(Succeed())
	b.demand("changed", changed, signedBy("good"))
	b.rejects("changed")

	// A signature says which digest it is of.
	s.carry(b, b.digest(shop, digest), b.digest(changed, other))
	b.Expect(verify("cosign.pub", changed)).NotTo(Succeed())
	_, err := b.try("verify", changed+":1.0.0", "--key=cosign.pub")
	b.Expect(err).To(MatchError(SatisfyAll(ContainSubstring("is not accepted"), ContainSubstring("of another image"))))

	// And the other way round: what the cosign command signs.
	cosign.run("sign", "--yes", "--key=cosign.key", "--use-signing-config=false", "--tlog-upload=false", s.flag, "--allow-http-registry", changed+"@"+other)
	b.Expect(b.flux("verify", changed+":1.0.0", "--key=cosign.pub")).To(ContainSubstring("signed by key cosign.pub "))
	_, err = b.try("verify", changed+":1.0.0", "--key=other.pub")
	b.Expect(err).To(MatchError(ContainSubstring("by another key than other.pub")))
}

// TestKeysThatOthersRefuse holds what the guide says of keys: with which this project
// and source-controller accept what the command line signs, and which the cosign command
// accepts without further flags.
func TestKeysThatOthersRefuse(t *testing.T) {
	t.Parallel()
	n := newTenant(t, v1alpha1.UseAsSourceEnabled)
	binary := buildBundler(t)
	for kind, key := range map[string]struct {
		generate func() (crypto.Signer, error)
		// flag has cosign verify accept the signature; empty: no flag does.
		flag string
		// accepted tells whether source-controller and cosign verify accept it as it is.
		accepted bool
	}{
		"p-256":   {generate: onCurve(elliptic.P256()), accepted: true},
		"rsa":     {generate: func() (crypto.Signer, error) { return rsa.GenerateKey(rand.Reader, 2048) }, accepted: true},
		"p-384":   {generate: onCurve(elliptic.P384()), flag: "--signature-digest-algorithm=sha384"},
		"p-521":   {generate: onCurve(elliptic.P521()), flag: "--signature-digest-algorithm=sha512"},
		"ed25519": {generate: func() (crypto.Signer, error) { _, key, err := ed25519.GenerateKey(rand.Reader); return key, err }},
	} {
		for format, sign := range map[string]func(*bundler, string) string{"bundle": (*bundler).pushSigned, "legacy": (*bundler).pushSignedLegacy} {
			t.Run(kind+" "+format, func(t *testing.T) {
				t.Parallel()
				b := &bundler{tenant: &tenant{T: t, Gomega: NewWithT(t), namespace: n.namespace}, binary: binary, dir: t.TempDir()}
				public := b.importKey(key.generate)
				name := kind + "-" + format
				b.secret(name, corev1.SecretTypeOpaque, map[string]string{"cosign.pub": string(public)})
				b.write("1.0.0")
				repository := b.ref(name)
				digest := sign(b, repository)
				b.demand(name, repository, signedBy(name))

				cosign := newCosignCommand(b.tenant)
				cosign.dir = b.dir
				verify := func(flags ...string) error {
					_, err := cosign.try(append([]string{"verify", "--key=cosign.pub", "--insecure-ignore-tlog=true", "--allow-http-registry", repository + ":1.0.0"}, flags...)...)
					return err
				}
				newFormat := fmt.Sprintf("--new-bundle-format=%t", format == "bundle")
				if key.accepted {
					b.accepts(name, "1.0.0@"+digest, "key cosign.pub (sha256:")
					b.Expect(verify(newFormat)).To(Succeed())
					return
				}
				b.Expect(verify(newFormat)).NotTo(Succeed())
				if key.flag != "" {
					b.Expect(verify(newFormat, key.flag)).To(Succeed())
				}
				b.published(name, "1.0.0@"+digest)
				theirs := named(b.tenant, name, &sourcev1.OCIRepository{})
				b.eventually(func(g Gomega) {
					theirs = get(b.tenant, name, theirs)
					g.Expect(conditions.GetReason(theirs, sourcev1.SourceVerifiedCondition)).To(Equal(sourcev1.VerificationError))
				})
				b.Expect(theirs.Status.Artifact).To(BeNil())
			})
		}
	}
}

func onCurve(curve elliptic.Curve) func() (crypto.Signer, error) {
	return func() (crypto.Signer, error) { return ecdsa.GenerateKey(curve, rand.Reader) }
}

// importKey writes a key in the form of cosign as cosign.key and cosign.pub, and
// returns the public one.
func (b *bundler) importKey(generate func() (crypto.Signer, error)) (public []byte) {
	b.Helper()
	private, err := generate()
	b.Expect(err).NotTo(HaveOccurred())
	der, err := x509.MarshalPKCS8PrivateKey(private)
	b.Expect(err).NotTo(HaveOccurred())
	path := filepath.Join(b.dir, "key.pem")
	b.Expect(os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600)).To(Succeed())
	pair, err := cosignkeys.ImportKeyPair(path, func(bool) ([]byte, error) { return []byte(bundlePassword), nil })
	b.Expect(err).NotTo(HaveOccurred())
	b.Expect(os.WriteFile(filepath.Join(b.dir, "cosign.key"), pair.PrivateBytes, 0o600)).To(Succeed())
	b.Expect(os.WriteFile(filepath.Join(b.dir, "cosign.pub"), pair.PublicBytes, 0o600)).To(Succeed())
	return pair.PublicBytes
}

func signedBy(secret string) *sourcev1.OCIRepositoryVerification {
	return &sourcev1.OCIRepositoryVerification{Provider: "cosign", SecretRef: &meta.LocalObjectReference{Name: secret}}
}

func (b *bundler) digest(repository, digest string) name.Digest {
	b.Helper()
	named, err := name.NewDigest(repository + "@" + digest)
	b.Expect(err).NotTo(HaveOccurred())
	return named
}

func (b *bundler) pushSigned(repository string) string {
	b.Helper()
	_, digest, _ := strings.Cut(b.flux("-f", "deploy", "-t", repository+":1.0.0", "-s", "cosign.key"), "@")
	return digest
}

// pushSignedLegacy copies the artifact and its older signature to a repository
// where the newer one is not.
func (b *bundler) pushSignedLegacy(repository string) string {
	b.Helper()
	both := repository + "-both"
	_, digest, _ := strings.Cut(b.flux("-f", "deploy", "-t", both+":1.0.0", "-s", "cosign.key", "--legacy-signature"), "@")
	b.Expect(crane.Copy(both+":1.0.0", repository+":1.0.0")).To(Succeed())
	b.carryLegacy(b.digest(both, digest), b.digest(repository, digest))
	return digest
}

func (b *bundler) carryLegacy(from, to name.Digest) {
	b.Helper()
	tag := func(image name.Digest) string {
		return image.Context().Tag(strings.Replace(image.DigestStr(), ":", "-", 1) + ".sig").Name()
	}
	b.Expect(crane.Copy(tag(from), tag(to))).To(Succeed())
}

func (b *bundler) carryBundle(from, to name.Digest) {
	b.Helper()
	index, err := remote.Referrers(from, remote.WithContext(b.Context()))
	b.Expect(err).NotTo(HaveOccurred())
	referrers, err := index.IndexManifest()
	b.Expect(err).NotTo(HaveOccurred())
	b.Expect(referrers.Manifests).To(HaveLen(1))
	image, err := remote.Image(from.Context().Digest(referrers.Manifests[0].Digest.String()), remote.WithContext(b.Context()))
	b.Expect(err).NotTo(HaveOccurred())
	layers, err := image.Layers()
	b.Expect(err).NotTo(HaveOccurred())
	content, err := layers[0].Compressed()
	b.Expect(err).NotTo(HaveOccurred())
	defer content.Close()
	signature, err := io.ReadAll(content)
	b.Expect(err).NotTo(HaveOccurred())
	b.Expect(ociremote.WriteAttestationNewBundleFormat(to, signature, ctypes.CosignSignPredicateType)).To(Succeed())
}
