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

package source

import (
	"cmp"
	"crypto/sha256"
	"fmt"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/fluxcd/pkg/apis/meta"

	"github.com/image-source/image-source-controller/api/v1alpha1"
)

// Token returns the reconcile request on an object as a status repeats it: as a hash if it
// is too long, empty without a request.
func Token(obj metav1.Object) string {
	token := obj.GetAnnotations()[meta.ReconcileRequestAnnotation]
	if len(token) <= v1alpha1.MaxRequestBytes {
		return token
	}
	return fmt.Sprintf("sha256:%x", sha256.Sum256([]byte(token)))
}

// Requested reports whether a user asked for a reconcile since the last one. It is false for
// an object that was never reconciled: no reconcile is older than the request.
func (s Snapshot) Requested() bool {
	if s.Object.Status.ObservedGeneration < 1 {
		return false
	}
	now, seen := s.requests(), s.observed()
	return s.NewToken() != "" || now.ImagePolicy != "" && now.ImagePolicy != seen.ImagePolicy ||
		now.ImageRepository != "" && now.ImageRepository != seen.ImageRepository && !s.handedOn(now.ImageRepository)
}

// handedOn reports whether a request on an ImageRepository is a copy of a request
// on the object itself or on its ExternalArtifact.
func (s Snapshot) handedOn(token string) bool {
	return token == s.Object.Status.LastHandledReconcileAt || token == s.observed().ExternalArtifact
}

// NewToken returns the request on the ArtifactRepository or on its ExternalArtifact since
// the last reconcile; empty without one.
func (s Snapshot) NewToken() string {
	token := Token(s.Object)
	switch {
	case s.Object.Status.ObservedGeneration < 1:
		return ""
	case token != "" && token != s.Object.Status.LastHandledReconcileAt:
		return token
	default:
		return s.NewExternalToken()
	}
}

// NewExternalToken returns the request on the ExternalArtifact since the last reconcile;
// empty without one.
func (s Snapshot) NewExternalToken() string {
	if token := s.requests().ExternalArtifact; token != s.observed().ExternalArtifact {
		return token
	}
	return ""
}

// Acknowledged returns the requests for the status after the requests of the snapshot are
// handled.
func (s Snapshot) Acknowledged() (lastHandled string, observed *v1alpha1.ObservedRequests) {
	lastHandled = cmp.Or(Token(s.Object), s.Object.Status.LastHandledReconcileAt)
	now, seen := s.requests(), s.observed()
	now = v1alpha1.ObservedRequests{
		ImagePolicy:      cmp.Or(now.ImagePolicy, seen.ImagePolicy),
		ImageRepository:  cmp.Or(now.ImageRepository, seen.ImageRepository),
		ExternalArtifact: cmp.Or(now.ExternalArtifact, seen.ExternalArtifact),
	}
	if now == seen {
		return lastHandled, s.Object.Status.ObservedRequests.DeepCopy()
	}
	return lastHandled, &now
}

// requests returns the tokens on the related objects.
func (s Snapshot) requests() (now v1alpha1.ObservedRequests) {
	if s.Policy != nil {
		now.ImagePolicy = Token(s.Policy)
	}
	if s.Repository != nil {
		now.ImageRepository = Token(s.Repository)
	}
	if s.External != nil {
		now.ExternalArtifact = Token(s.External)
	}
	return now
}

func (s Snapshot) observed() v1alpha1.ObservedRequests {
	if s.Object.Status.ObservedRequests == nil {
		return v1alpha1.ObservedRequests{}
	}
	return *s.Object.Status.ObservedRequests
}
