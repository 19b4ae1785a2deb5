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
	"strings"
	"testing"
)

func TestAShortRevisionFitsATerminal(t *testing.T) {
	digits := strings.Repeat("8090d75edadc4f6a", 4)
	for revision, want := range map[string]string{
		"1.4.2@sha256:" + digits:      "1.4.2@sha256:8090d75edadc",
		"sha256:" + digits:            "sha256:8090d75edadc",
		"1.4.2+0ffcbdae@sha256:abcde": "1.4.2+0ffcbdae@sha256:abcde",
		"1.4.2":                       "1.4.2",
		"":                            "",
	} {
		if got := shorten(revision); got != want {
			t.Errorf("%q: found %q, expected %q", revision, got, want)
		}
	}
}
