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
	"fmt"
	"strings"
	"testing"

	"github.com/fluxcd/pkg/apis/meta"

	"github.com/image-source/image-source-controller/api/v1alpha1"
)

func TestAJudgementIsRecordedWhateverTheRecordLacks(t *testing.T) {
	status := &v1alpha1.ArtifactRepositoryStatus{Artifact: &meta.Artifact{}}
	recordJudgement(status, &judgement{by: "key", fingerprint: "new"})
	if got := status.Artifact.Metadata[v1alpha1.MetadataVerifiedBy]; got != "key" || status.ObservedTrust != "new" {
		t.Errorf("verified by %q under %q", got, status.ObservedTrust)
	}
	recordJudgement(status, &judgement{rejected: true})
	if status.Artifact != nil || status.ObservedTrust != "" {
		t.Errorf("what was rejected is still recorded: %+v", status)
	}
}

func TestOnlyTheLastWithdrawnFilesAreRecorded(t *testing.T) {
	status := &v1alpha1.ArtifactRepositoryStatus{}
	digest := func(i int) string { return fmt.Sprintf("%064x", i) }
	for i := range 12 {
		status.Artifact = &meta.Artifact{Path: "externalartifact/apps/app/" + digest(i) + ".tar.gz"}
		clearPublished(status)
		clearPublished(status)
	}
	if len(status.Withdrawn) != v1alpha1.MaxWithdrawn || status.Withdrawn[0] != "sha256:"+digest(11) || status.Withdrawn[9] != "sha256:"+digest(2) {
		t.Errorf("recorded %q", status.Withdrawn)
	}
	for _, path := range []string{"", "externalartifact/apps/app/x.tar.gz", "../" + digest(1)[1:] + ".tar.gz"} {
		status = &v1alpha1.ArtifactRepositoryStatus{Artifact: &meta.Artifact{Path: path}}
		if clearPublished(status); status.Artifact != nil || len(status.Withdrawn) > 0 {
			t.Errorf("a record that names %q: %+v", path, status)
		}
	}
}

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
