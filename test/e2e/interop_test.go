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
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/notaryproject/notation-core-go/signature/cose"
	"github.com/notaryproject/notation-core-go/signature/jws"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/fluxcd/pkg/apis/meta"
	"github.com/fluxcd/pkg/runtime/conditions"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"

	"github.com/image-source/image-source-controller/api/v1alpha1"
	"github.com/image-source/image-source-controller/test/controlplane"
	"github.com/image-source/image-source-controller/test/publish"
)

// TestSignaturesOfEverybody has images signed by everything that signs them, in
// a registry with the list of referrers and in one without, and holds that this
// project and source-controller agree about each: the right Secret is enough,
// a stranger's is not, and neither is the image as it was before.
func TestSignaturesOfEverybody(t *testing.T) {
	t.Parallel()
	listed := publish.ServeReferrers()
	t.Cleanup(listed.Close)
	for place, registry := range map[string]publish.Registry{
		"listed by the registry": {Host: listed.Host()},
		"under a tag":            {Host: env.Registry().Host()},
	} {
		for signer, newSigner := range map[string]func(*tenant) signer{
			"a bundle by the cosign command":           newCosign("--new-bundle-format"),
			"a legacy signature by the cosign command": newCosign("--new-bundle-format=false"),
			"a bundle by the library of Sigstore":      newLibrary(publish.Registry.SignBundle),
			"a legacy signature by its library":        newLibrary(publish.Registry.Sign),
			"Notation in JWS":                          newNotation(jws.MediaTypeEnvelope),
			"Notation in COSE":                         newNotation(cose.MediaTypeEnvelope),
		} {
			t.Run(signer+", "+place, func(t *testing.T) {
				t.Parallel()
				testSigner(newTenant(t, v1alpha1.UseAsSourceEnabled), registry, newSigner)
			})
		}
	}
}

// signer is somebody who signs images.
type signer struct {
	provider string
	// trusts is the content of a Secret that trusts this signer alone.
	trusts map[string]string
	// says is part of how the signer is named where it was verified.
	says string
	sign func(registry publish.Registry, image string)
	// check holds that the signer's own tool accepts the image; it may be nil.
	check func(image string)
}

func testSigner(n *tenant, registry publish.Registry, newSigner func(*tenant) signer) {
	good, stranger := newSigner(n), newSigner(n)
	n.secret("good", corev1.SecretTypeOpaque, good.trusts)
	n.secret("stranger", corev1.SecretTypeOpaque, stranger.trusts)
	image := n.image(app) + ":1.0.0"
	revision := n.pushTo(registry, image, configMap(n.namespace, "1.0.0"))

	for _, secret := range []string{"good", "stranger"} {
		n.demand(secret, registry.Host+"/"+n.image(app), &sourcev1.OCIRepositoryVerification{
			Provider: good.provider, SecretRef: &meta.LocalObjectReference{Name: secret},
		})
		n.rejects(secret) // nobody has signed
	}
	good.sign(registry, image)
	n.accepts("good", revision, good.says)
	if good.check != nil {
		_, digest, _ := strings.Cut(revision, "@")
		good.check(registry.Host + "/" + n.image(app) + "@" + digest)
	}
	n.rejects("stranger")
	stranger.sign(registry, image) // beside the good one
	n.accepts("stranger", revision, stranger.says)
	n.accepts("good", revision, good.says)
}

// demand has an image published if it is signed, by this project and by
// source-controller, which both look every second.
func (n *tenant) demand(name, image string, verify *sourcev1.OCIRepositoryVerification) {
	n.Helper()
	ours := named(n, name, &v1alpha1.ArtifactRepository{})
	ours.Spec.Image, ours.Spec.Tag, ours.Spec.Insecure = image, "1.0.0", true
	ours.Spec.Interval = &metav1.Duration{Duration: time.Second}
	ours.Spec.Verify = verify
	theirs := named(n, name, &sourcev1.OCIRepository{})
	theirs.Spec.URL, theirs.Spec.Insecure = "oci://"+image, true
	theirs.Spec.Reference = &sourcev1.OCIRepositoryRef{Tag: "1.0.0"}
	theirs.Spec.Interval.Duration = time.Second
	theirs.Spec.Verify = verify
	n.create(ours, theirs)
}

// accepts waits until both say who signed what they publish.
func (n *tenant) accepts(name, revision, who string) {
	n.Helper()
	n.published(name, revision)
	n.eventually(func(g Gomega) {
		record := get(n, name, &v1alpha1.ArtifactRepository{})
		g.Expect(conditions.IsTrue(record, v1alpha1.SourceVerifiedCondition)).To(BeTrue(), conditions.GetMessage(record, v1alpha1.SourceVerifiedCondition))
		g.Expect(record.Status.History[0].VerifiedBy).To(ContainSubstring(who))
	})
	theirs := named(n, name, &sourcev1.OCIRepository{})
	n.annotate(theirs, meta.ReconcileRequestAnnotation, time.Now().Format(time.RFC3339Nano)) // it has backed off
	n.eventually(func(g Gomega) {
		theirs = get(n, name, theirs)
		g.Expect(conditions.IsTrue(theirs, meta.ReadyCondition)).To(BeTrue(), conditions.GetMessage(theirs, meta.ReadyCondition))
		g.Expect(conditions.IsTrue(theirs, sourcev1.SourceVerifiedCondition)).To(BeTrue(), conditions.GetMessage(theirs, sourcev1.SourceVerifiedCondition))
		g.Expect(theirs.Status.Artifact).NotTo(BeNil())
		g.Expect(theirs.Status.Artifact.Revision).To(Equal(revision))
	})
}

// rejects waits until both refuse what there is at this moment, and holds that
// nothing was published.
func (n *tenant) rejects(name string) {
	n.Helper()
	ours := n.reconciled(name)
	n.Expect(conditions.GetReason(ours, meta.ReadyCondition)).To(Equal(v1alpha1.ReasonVerificationError), conditions.GetMessage(ours, meta.ReadyCondition))
	n.Expect(conditions.IsFalse(ours, v1alpha1.SourceVerifiedCondition)).To(BeTrue())
	n.Expect(ours.Status.Artifact).To(BeNil())
	n.unpublished(name)
	n.Expect(n.stored(name)).To(BeEmpty())
	theirs := named(n, name, &sourcev1.OCIRepository{})
	token := time.Now().Format(time.RFC3339Nano)
	n.annotate(theirs, meta.ReconcileRequestAnnotation, token)
	n.eventually(func(g Gomega) {
		theirs = get(n, name, theirs)
		g.Expect(theirs.Status.LastHandledReconcileAt).To(Equal(token))
		g.Expect(conditions.GetReason(theirs, sourcev1.SourceVerifiedCondition)).To(Equal(sourcev1.VerificationError))
		g.Expect(theirs.Status.Artifact).To(BeNil())
	})
}

// cosign is the real command, as somebody runs it who has a key pair with a
// password, and no connection to anything but the registry.
type cosign struct {
	*tenant
	program, dir string
	// password of the keys.
	password string
}

func newCosignCommand(n *tenant) *cosign {
	n.Helper()
	program, err := controlplane.Executable(n.Context(), controlplane.Cosign)
	n.Expect(err).NotTo(HaveOccurred())
	dir := n.TempDir()
	return &cosign{tenant: n, program: program, dir: dir, password: "a secret of " + dir}
}

// newCosign signs with the command. The flag says in which format.
func newCosign(format string) func(*tenant) signer {
	return func(n *tenant) signer {
		n.Helper()
		c := newCosignCommand(n)
		c.run("generate-key-pair")
		key, err := os.ReadFile(filepath.Join(c.dir, "cosign.key"))
		n.Expect(err).NotTo(HaveOccurred())
		n.Expect(string(key)).To(ContainSubstring("BEGIN ENCRYPTED"))
		public, err := os.ReadFile(filepath.Join(c.dir, "cosign.pub"))
		n.Expect(err).NotTo(HaveOccurred())
		return signer{
			provider: "cosign", trusts: map[string]string{"cosign.pub": string(public)}, says: "key cosign.pub (sha256:",
			sign: func(registry publish.Registry, image string) {
				n.Helper()
				digest, err := registry.Digest(n.Context(), image)
				n.Expect(err).NotTo(HaveOccurred())
				// No services are asked for anything: neither where they are, nor
				// to log or to stamp the signature.
				c.run("sign", "--yes", "--key=cosign.key", "--use-signing-config=false", "--tlog-upload=false", format, "--allow-http-registry", digest)
			},
			check: func(image string) {
				n.Helper()
				c.run("verify", "--key=cosign.pub", "--insecure-ignore-tlog=true", format, "--allow-http-registry", image)
			},
		}
	}
}

// run runs the command in a folder of its own.
func (c *cosign) run(args ...string) {
	c.Helper()
	output, err := c.try(args...)
	c.Expect(err).NotTo(HaveOccurred(), "cosign %s: %s", strings.Join(args, " "), output)
}

// try is run for what may fail; it returns what the command says.
func (c *cosign) try(args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(c.Context(), patience)
	defer cancel()
	command := exec.CommandContext(ctx, c.program, args...)
	command.Dir = c.dir
	const nobody = "http://127.0.0.1:9"
	command.Env = []string{
		"HOME=" + c.dir, "COSIGN_PASSWORD=" + c.password,
		"HTTP_PROXY=" + nobody, "HTTPS_PROXY=" + nobody, // loopback, and so the registry, goes without
	}
	output, err := command.CombinedOutput()
	return string(output), err
}

// newLibrary signs with the library that cosign is made of.
func newLibrary(sign func(publish.Registry, context.Context, string, *publish.Signer) error) func(*tenant) signer {
	return func(n *tenant) signer {
		n.Helper()
		by, err := publish.NewSigner()
		n.Expect(err).NotTo(HaveOccurred())
		return signer{
			provider: "cosign", trusts: map[string]string{"release.pub": string(by.PublicKey)}, says: "key release.pub (sha256:",
			sign: func(registry publish.Registry, image string) {
				n.Helper()
				n.Expect(sign(registry, n.Context(), image, by)).To(Succeed())
			},
		}
	}
}

// newNotation signs with the library that the notation command is made of.
func newNotation(envelope string) func(*tenant) signer {
	return func(n *tenant) signer {
		n.Helper()
		by, err := publish.NewNotary("release")
		n.Expect(err).NotTo(HaveOccurred())
		policy, err := json.Marshal(map[string]any{"version": "1.0", "trustPolicies": []any{map[string]any{
			"name": "release", "registryScopes": []string{"*"}, "signatureVerification": map[string]any{"level": "strict"},
			"trustStores": []string{"ca:release"}, "trustedIdentities": []string{by.Identity},
		}}})
		n.Expect(err).NotTo(HaveOccurred())
		return signer{
			provider: "notation", trusts: map[string]string{"trustpolicy.json": string(policy), "ca.crt": string(by.Authority)}, says: "CN=release",
			sign: func(registry publish.Registry, image string) {
				n.Helper()
				n.Expect(registry.Notarize(n.Context(), image, envelope, by)).To(Succeed())
			},
		}
	}
}
