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

package credentials

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/image-source/image-source-controller/api/v1alpha1"
	"github.com/image-source/image-source-controller/pkg/apiserver"
	"github.com/image-source/image-source-controller/pkg/fault"
)

// reference is one object and who names it.
type reference struct {
	types.NamespacedName
	kind string
	// by is where it is named, in words for a person.
	by string
}

func secretOf(r References, name, by string) reference {
	return reference{NamespacedName: types.NamespacedName{Namespace: r.Namespace, Name: name}, kind: "Secret", by: by}
}

func serviceAccountOf(r References, name, by string) reference {
	return reference{NamespacedName: types.NamespacedName{Namespace: r.Namespace, Name: name}, kind: "ServiceAccount", by: by}
}

// secret reads a Secret.
func (r *Resolver) secret(ctx context.Context, from reference) (*corev1.Secret, error) {
	var secret corev1.Secret
	if err := r.read(ctx, from, &secret); err != nil {
		return nil, err
	}
	return &secret, nil
}

// serviceAccount reads a ServiceAccount.
func (r *Resolver) serviceAccount(ctx context.Context, from reference) (*corev1.ServiceAccount, error) {
	var account corev1.ServiceAccount
	if err := r.read(ctx, from, &account); err != nil {
		return nil, err
	}
	return &account, nil
}

// read reads one object. An API server that refuses or fails counts as failed
// authentication as well, as it does in Flux: what a user sees is that there
// are no credentials, and the words tell why. The cause stays in the chain.
func (r *Resolver) read(ctx context.Context, from reference, into client.Object) error {
	err := r.options.Client.Get(ctx, from.NamespacedName, into)
	switch {
	case err == nil:
		return nil
	case apiserver.IsAbsent(err):
		return from.refuse("it does not exist; create it, or name one that does")
	default:
		return from.refuse("it could not be read from the API server: %w", err)
	}
}

// failed returns the error for want of credentials.
func failed(format string, args ...any) error {
	return fault.Retryf(v1alpha1.ReasonAuthenticationFailed, format, args...)
}

// refuse returns the error for an object that is of no use.
func (r reference) refuse(format string, args ...any) error {
	return failed("cannot use %s %q (%s): %w",
		r.kind, r.NamespacedName, r.by, fmt.Errorf(format, args...))
}
