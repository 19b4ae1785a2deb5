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

package apiserver_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"

	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/image-source/image-source-controller/pkg/apiserver"
)

var secrets = schema.GroupResource{Resource: "secrets"}

// byProxy is the error of client-go for a page of a proxy with a code.
func byProxy(code int) error {
	return apierrors.NewGenericServerResponse(code, "get", secrets, "login", "<html>", 0, true)
}

func TestOnlyAnAnswerAboutANamedObjectIsBelieved(t *testing.T) {
	ending := apierrors.NewForbidden(secrets, "login", errors.New("the namespace ends"))
	ending.ErrStatus.Details.Causes = []metav1.StatusCause{{Type: corev1.NamespaceTerminatingCause}}
	for name, c := range map[string]struct {
		err                    error
		absent, gone, conflict bool
	}{
		"no error":                       {nil, false, false, false},
		"an object that does not exist":  {apierrors.NewNotFound(secrets, "login"), true, true, false},
		"the same, wrapped":              {fmt.Errorf("read: %w", apierrors.NewNotFound(secrets, "login")), true, true, false},
		"a kind that does not exist":     {apierrors.NewNotFound(secrets, ""), false, false, false},
		"the 404 of a proxy":             {byProxy(http.StatusNotFound), false, false, false},
		"a namespace that ends":          {ending, false, true, false},
		"an object that has changed":     {apierrors.NewConflict(secrets, "login", errors.New("changed")), false, false, true},
		"the 409 of a proxy":             {byProxy(http.StatusConflict), false, false, false},
		"an API server that is too busy": {apierrors.NewTooManyRequests("wait", 1), false, false, false},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			g.Expect(apiserver.IsAbsent(c.err)).To(Equal(c.absent))
			g.Expect(apiserver.IsGone(c.err)).To(Equal(c.gone))
			g.Expect(apiserver.IsConflict(c.err)).To(Equal(c.conflict))
			g.Expect(apiserver.IgnoreAbsent(c.err) == nil).To(Equal(c.err == nil || c.absent))
		})
	}
}

// answering is a client with one error for each read, and counts the reads.
type answering struct {
	client.Reader
	err   error
	reads int
}

func (a *answering) Get(context.Context, client.ObjectKey, client.Object, ...client.GetOption) error {
	a.reads++
	return a.err
}

func TestAnObjectThatCannotExistIsNotAskedFor(t *testing.T) {
	for name, c := range map[string]struct {
		key   types.NamespacedName
		err   error
		reads int
		found bool
		fails bool
	}{
		"an object":            {types.NamespacedName{Namespace: "apps", Name: "login"}, nil, 1, true, false},
		"an absent object":     {types.NamespacedName{Namespace: "apps", Name: "login"}, apierrors.NewNotFound(secrets, "login"), 1, false, false},
		"the 404 of a proxy":   {types.NamespacedName{Namespace: "apps", Name: "login"}, byProxy(http.StatusNotFound), 1, false, true},
		"no name":              {types.NamespacedName{Namespace: "apps"}, nil, 0, false, false},
		"a path in the name":   {types.NamespacedName{Namespace: "apps", Name: "../login"}, nil, 0, false, false},
		"a path as namespace":  {types.NamespacedName{Namespace: "..", Name: "login"}, nil, 0, false, false},
		"a percent sign":       {types.NamespacedName{Namespace: "apps", Name: "%2e"}, nil, 0, false, false},
		"a name that is large": {types.NamespacedName{Namespace: "apps", Name: strings.Repeat("a/", 1000)}, nil, 0, false, false},
	} {
		t.Run(name, func(t *testing.T) {
			g, from := NewWithT(t), &answering{err: c.err}
			got, err := apiserver.Get(t.Context(), from, c.key, &corev1.Secret{})
			g.Expect(err != nil).To(Equal(c.fails))
			g.Expect(got != nil).To(Equal(c.found))
			g.Expect(from.reads).To(Equal(c.reads))
		})
	}
}
