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

package controllers

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/image-source/image-source-controller/api/v1alpha1"
	"github.com/image-source/image-source-controller/pkg/apiserver"
	"github.com/image-source/image-source-controller/pkg/trust"
	"github.com/image-source/image-source-controller/pkg/trustpolicy"
)

// TrustReader reads TrustPolicies and Secrets for a trustpolicy.Resolver.
type TrustReader struct {
	// Client reads TrustPolicies from a cache.
	Client client.Reader
	// Secrets reads the metadata of the Secrets of the platform from a cache.
	Secrets client.Reader
	// Live reads past the caches.
	Live client.Reader
}

// NewTrust returns the resolver of the demands of TrustPolicies, with Secrets in a
// namespace, and of spec.verify.
func NewTrust(reader TrustReader, namespace string, o trust.Options) *trustpolicy.Resolver {
	return &trustpolicy.Resolver{Reader: reader, Namespace: namespace, Options: o, Panicked: panicFault}
}

// TrustPolicies implements trustpolicy.Reader.
func (r TrustReader) TrustPolicies(ctx context.Context) ([]v1alpha1.TrustPolicy, error) {
	var list v1alpha1.TrustPolicyList
	err := r.Client.List(ctx, &list, client.UnsafeDisableDeepCopy)
	return list.Items, err
}

// SecretState implements trustpolicy.Reader.
func (r TrustReader) SecretState(ctx context.Context, namespace, name string) (string, error) {
	secret, err := apiserver.Get(ctx, r.Secrets, types.NamespacedName{Namespace: namespace, Name: name}, SecretMetadata())
	if secret == nil || err != nil {
		return "", err
	}
	return trustpolicy.StateOf(secret), nil
}

// Secret implements trustpolicy.Reader.
func (r TrustReader) Secret(ctx context.Context, namespace, name string) (*corev1.Secret, error) {
	return apiserver.Get(ctx, r.Live, types.NamespacedName{Namespace: namespace, Name: name}, &corev1.Secret{})
}

// SecretMetadata is a Secret without its data.
func SecretMetadata() *metav1.PartialObjectMetadata {
	obj := &metav1.PartialObjectMetadata{}
	obj.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind("Secret"))
	return obj
}

// StripSecret removes copies of the data from the metadata of a Secret before it is cached:
// kubectl apply writes it to an annotation.
func StripSecret(obj any) (any, error) {
	if secret, ok := obj.(metav1.Object); ok {
		secret.SetAnnotations(nil)
		secret.SetManagedFields(nil)
	}
	return obj, nil
}
