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

package access_test

import (
	"testing"

	. "github.com/onsi/gomega"

	"github.com/image-source/image-source-controller/pkg/access"
)

func TestReferencesForAnotherRegistry(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct{ written, used access.References }{
		"logins name their registry, and a proxy is the way to all": {
			written: access.References{Namespace: "apps", SecretName: "a", ServiceAccountName: "b", ProxySecretName: "c"},
			used:    access.References{Namespace: "apps", SecretName: "a", ServiceAccountName: "b", ProxySecretName: "c"},
		},
		"certificates and plain HTTP are for one registry": {
			written: access.References{Namespace: "apps", Provider: "generic", SecretName: "a", CertSecretName: "b", Insecure: true},
			used:    access.References{Namespace: "apps", SecretName: "a"},
		},
		"so is an identity in a cloud": {
			written: access.References{Namespace: "apps", Provider: "aws", ServiceAccountName: "a"},
			used:    access.References{Namespace: "apps"},
		},
		"a Secret wins over a cloud, here too": {
			written: access.References{Namespace: "apps", Provider: "aws", SecretName: "a", ServiceAccountName: "b"},
			used:    access.References{Namespace: "apps", SecretName: "a", ServiceAccountName: "b"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			NewWithT(t).Expect(test.written.Elsewhere()).To(Equal(test.used))
		})
	}
}
