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
	"testing"
	"time"

	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/fluxcd/pkg/apis/meta"
	"github.com/fluxcd/pkg/runtime/conditions"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"

	"github.com/image-source/image-source-controller/api/v1alpha1"
	"github.com/image-source/image-source-controller/test/publish"
)

// withdrawal is a way by which what is published is taken away.
type withdrawal struct {
	reason string
	// begin is what makes it necessary, and end what makes it so no longer.
	begin, end func(*victim)
}

// removesArtifact matches a patch that takes an artifact out of a status.
var removesArtifact = says(`{"op":"remove","path":"/status/artifact"}`)

var withdrawals = map[string]withdrawal{
	"opted out": {
		reason: v1alpha1.ReasonAccessDenied,
		begin:  func(v *victim) { v.label("") },
		end:    func(v *victim) { v.label(v1alpha1.UseAsSourceEnabled) },
	},
	"rejected": {
		reason: v1alpha1.ReasonVerificationError,
		begin: func(v *victim) {
			other, err := publish.NewSigner()
			v.Expect(err).NotTo(HaveOccurred())
			v.trusts(other)
		},
		end: func(v *victim) { v.trusts(v.signer) },
	},
}

// trusts has the source demand the signature of somebody, and be looked at.
func (v *victim) trusts(signer *publish.Signer) {
	v.Helper()
	change(v.tenant, named(v.tenant, "keys", &corev1.Secret{}), func(keys *corev1.Secret) {
		keys.Data = map[string][]byte{"cosign.pub": signer.PublicKey}
	})
	v.annotate(named(v.tenant, app, &v1alpha1.ArtifactRepository{}), meta.ReconcileRequestAnnotation, time.Now().Format(time.RFC3339Nano))
}

// What is withdrawn is taken from consumers and out of the record. Wherever a
// controller dies on this way, the next one goes it to its end, and what may be
// published later is.
func TestKilledWhileWithdrawing(t *testing.T) {
	t.Parallel()
	recordIsCleared := all(does(http.MethodPatch, "/artifactrepositories/app/status"), removesArtifact)
	externalIsEmptied := all(recordIsPublished, removesArtifact)
	moments := map[string]struct {
		at point
		// record tells that the controller dies at the write of the record, and not at
		// that of what consumers see; done that this write has been done.
		record, done bool
	}{
		"before it is taken from consumers": {beforeServer, false, false},
		"after it is taken from consumers":  {beforeAnswer, false, true},
		"before the record is cleared":      {beforeServer, true, false},
		"after the record is cleared":       {beforeAnswer, true, true},
	}
	for name, shard := range map[string]string{"opted out": "withdrawing", "rejected": "rejecting"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			v, why := newVictim(t, shard), withdrawals[name]
			wanted := map[string]string{app: "1.0.1"}
			for _, when := range shuffled(v.random, moments) {
				moment := moments[when]
				v.Logf("%s %s", time.Now().Format(time.TimeOnly), when)
				before := v.unharmed(wanted, v.controller)[app]
				write := externalIsEmptied
				if moment.record {
					write = recordIsCleared
				}
				stopped := v.api.stop(moment.at, write)
				why.begin(v)
				stopped.await(v.tenant)
				v.Expect(v.controller.Kill()).To(Succeed())
				stopped.sever()
				// Neither write waits for the other, which may have been done or not.
				if moment.record {
					v.Expect(get(v.tenant, app, &v1alpha1.ArtifactRepository{}).Status.Artifact == nil).To(Equal(moment.done), when)
				} else {
					v.Expect(v.seenByConsumers() == nil).To(Equal(moment.done), when)
				}

				v.Expect(v.controller.Restart(v.Context())).To(Succeed())
				v.withdrawn(why.reason, before)
				revision, _ := v.push(nil)
				v.picked(app, fmt.Sprintf("1.0.%d", v.level))
				why.end(v)
				wanted[app] = revision
			}
			v.collected(v.controller, wanted)
		})
	}
}

// seenByConsumers returns what the ExternalArtifact names, nil if there is none.
func (v *victim) seenByConsumers() *meta.Artifact {
	v.Helper()
	external := &sourcev1.ExternalArtifact{}
	err := env.Client.Get(v.Context(), v.key(app), external)
	if !apierrors.IsNotFound(err) {
		v.Expect(err).NotTo(HaveOccurred())
	}
	return external.Status.Artifact
}

// withdrawn waits until what was published is nowhere any more, and nothing says
// that it were ready.
func (v *victim) withdrawn(reason string, before *meta.Artifact) {
	v.Helper()
	v.eventually(func(g Gomega) {
		obj, _ := v.notReady(app, reason)
		g.Expect(obj.Status.Artifact).To(BeNil())
		g.Expect(obj.Status.Record).To(BeNil())
		g.Expect(conditions.Has(obj, v1alpha1.ArtifactInStorageCondition)).To(BeFalse())
		external := &sourcev1.ExternalArtifact{}
		if err := env.Client.Get(v.Context(), v.key(app), external); !apierrors.IsNotFound(err) {
			g.Expect(err).NotTo(HaveOccurred())
			g.Expect(external.Status.Artifact).To(BeNil())
			g.Expect(conditions.GetReason(external, meta.ReadyCondition)).To(Equal(reason))
			g.Expect(conditions.IsReady(external)).To(BeFalse())
		}
		g.Expect(v.answered(v.controller, before.Path)).To(Equal(http.StatusNotFound))
	})
}
