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
