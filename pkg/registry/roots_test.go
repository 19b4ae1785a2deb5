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

package registry_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	. "github.com/onsi/gomega"
)

// TestRepositoriesOfRootsAreAskedByTheRulesOfRegistries holds that whoever answers for
// one leads nowhere that a registry could not.
func TestRepositoriesOfRootsAreAskedByTheRulesOfRegistries(t *testing.T) {
	for name, tc := range map[string]struct {
		method string
		answer http.HandlerFunc
		words  string // empty: it is answered
	}{
		"a file":                               {answer: write("x")},
		"a redirect on its own host":           {answer: leadOnce("/there")},
		"a redirect to metadata":               {answer: redirect("http://169.254.169.254/latest"), words: "never allowed"},
		"a redirect to another private server": {answer: redirect("http://127.0.0.2:1/"), words: "refused to connect"},
		"a redirect to itself, for ever":       {answer: redirect("/"), words: "more than 5 redirects"},
		"a header of a megabyte":               {answer: write("x", "X", strings.Repeat("x", 1<<20)), words: "header"},
		"another method":                       {method: http.MethodPost, answer: write("x"), words: "refused to send POST"},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if _, _, ok := r.BasicAuth(); ok {
					t.Error("it was sent credentials")
				}
				tc.answer(w, r)
			}))
			t.Cleanup(server.Close)
			request, err := http.NewRequestWithContext(bounded(t), tc.method, server.URL, http.NoBody)
			g.Expect(err).NotTo(HaveOccurred())
			request.SetBasicAuth("user", password)
			answer, err := (&http.Client{Transport: newClient(t, quick()).Roots()}).Do(request)
			if tc.words != "" {
				g.Expect(err).To(MatchError(ContainSubstring(tc.words)))
				return
			}
			g.Expect(err).NotTo(HaveOccurred())
			defer answer.Body.Close()
			g.Expect(io.ReadAll(answer.Body)).To(BeEquivalentTo("x"))
		})
	}
}

// leadOnce redirects to a path that has a file.
func leadOnce(path string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == path {
			write("x")(w, r)
			return
		}
		redirect(path)(w, r)
	}
}
