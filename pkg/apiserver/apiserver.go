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

// Package apiserver reads single objects, and checks the subject of an answer of the API
// server. NotFound and Conflict count only if they are about a named object.
package apiserver

import (
	"context"
	"errors"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/validate/content"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// Get reads an object into obj and returns it; nil if it does not exist, or if the name is
// invalid: the API server answers a request for an invalid name with an error and not with
// NotFound, and an error would delay a withdrawal.
func Get[T client.Object](ctx context.Context, c client.Reader, key types.NamespacedName, obj T) (T, error) {
	var none T
	if key.Name == "" || len(content.IsPathSegmentName(key.Name)) > 0 || len(content.IsPathSegmentName(key.Namespace)) > 0 {
		return none, nil
	}
	err := c.Get(ctx, key, obj)
	if err == nil {
		return obj, nil
	}
	return none, IgnoreAbsent(err)
}

// IsGone reports whether a write failed because its object, or the namespace of the object,
// is being deleted.
func IsGone(err error) bool {
	return IsAbsent(err) || apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause)
}

// IsAbsent reports whether an answer means: this named object does not exist.
func IsAbsent(err error) bool { return apierrors.IsNotFound(err) && isAboutObject(err) }

// IgnoreAbsent returns nil for the answer that a named object does not exist.
func IgnoreAbsent(err error) error {
	if IsAbsent(err) {
		return nil
	}
	return err
}

// IsConflict reports whether a write was refused because the object has changed since it was
// read.
func IsConflict(err error) bool { return apierrors.IsConflict(err) && isAboutObject(err) }

// isAboutObject reports whether an answer of the API server is about a named object. An API
// server without the type of an object, and a proxy in front of it, answer with the same
// codes: client-go adds the name of the request to these answers, and this cause.
func isAboutObject(err error) bool {
	answer := apierrors.APIStatus(nil)
	if !errors.As(err, &answer) || apierrors.HasStatusCause(err, metav1.CauseTypeUnexpectedServerResponse) {
		return false
	}
	details := answer.Status().Details
	return details != nil && details.Name != ""
}
