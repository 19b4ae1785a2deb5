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

package publication_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	imagev1 "github.com/fluxcd/image-reflector-controller/api/v1"
	"github.com/fluxcd/pkg/apis/meta"

	"github.com/image-source/image-source-controller/api/v1alpha1"
	"github.com/image-source/image-source-controller/pkg/bridge"
	"github.com/image-source/image-source-controller/pkg/format"
	"github.com/image-source/image-source-controller/pkg/publication"
)

// made returns the product number i with the digest i.
func made(i int) publication.Product {
	size := int64(i)
	return publication.Product{
		Outcome: bridge.Outcome{
			Image:   bridge.Image{Repository: "ghcr.io/org/app", Tag: fmt.Sprintf("1.%d.0", i), Digest: v1.Hash{Algorithm: "sha256", Hex: hex(i)}},
			Format:  "Flux",
			Content: "settings",
			Bytes:   int64(100 * i),
			Artifact: meta.Artifact{
				Path: "externalartifact/apps/app/" + hex(i) + ".tar.gz", Digest: "sha256:" + hex(i), Size: &size,
				Revision: fmt.Sprintf("1.%d.0@sha256:%s", i, hex(i)), LastUpdateTime: metav1.NewTime(time.Unix(int64(i), 0)),
			},
		},
		Settings: format.Options{Platform: "linux/amd64"},
		Accepted: &publication.Acceptance{Fingerprint: "rules"},
	}
}

func promoted(products ...publication.Product) (status v1alpha1.ArtifactRepositoryStatus) {
	for _, p := range products {
		status = publication.Apply(status, publication.Promote(p))
	}
	return status
}

func TestTheZeroChangeChangesNoField(t *testing.T) {
	for name, status := range map[string]v1alpha1.ArtifactRepositoryStatus{
		"never published":  {},
		"published":        promoted(made(1)),
		"without a recipe": {Artifact: &meta.Artifact{Revision: "1"}},
	} {
		for _, change := range []publication.Change{{}, publication.Keep(), publication.Keep().Confirming(nil)} {
			if after := publication.Apply(status, change); !equality.Semantic.DeepEqual(after, status) {
				t.Errorf("%s: found %+v, expected %+v", name, after, status)
			}
		}
	}
}

func TestApplyAltersNoArgument(t *testing.T) {
	status, product := promoted(made(1)), made(2)
	status.LatestRef = &imagev1.ImageRef{Tag: "1.1.0"}
	product.Artifact.Metadata = map[string]string{"key": "value"}
	before, made := *status.DeepCopy(), *product.Artifact.DeepCopy()
	for _, change := range []publication.Change{
		publication.Confirm(publication.Acceptance{By: "key", Warnings: []string{"no SBOM"}}), publication.Promote(product), publication.Restore(product), publication.Withdraw(), publication.Remove(),
		publication.Promote(product).Confirming(&publication.Acceptance{By: "key"}),
	} {
		after := publication.Apply(status, change)
		if after.Artifact != nil {
			after.Artifact.Metadata = map[string]string{"other": "other"}
			*after.Artifact.Size = 7
		}
		if len(after.History) > 0 {
			after.History[0].Tag = "changed"
		}
		if !equality.Semantic.DeepEqual(status, before) || !equality.Semantic.DeepEqual(product.Artifact, made) {
			t.Errorf("kind %d altered an argument: %+v, %+v", change.Kind(), status, product.Artifact)
		}
	}
}

func TestChanges(t *testing.T) {
	lent := made(1)
	lent.Lender = "vendor/app"
	unverified := func(p publication.Product) publication.Product {
		p.Accepted, p.Bytes = nil, 0
		return p
	}
	renamed := unverified(made(1))
	renamed.Artifact.Revision, renamed.Image.Tag = "stable@sha256:"+hex(1), "stable"
	rebuilt := made(1)
	rebuilt.Artifact.Digest, rebuilt.Artifact.Path = "sha256:"+hex(9), "externalartifact/apps/app/"+hex(9)+".tar.gz"
	rebuilt.Accepted = &publication.Acceptance{Fingerprint: "new rules"}
	signed := publication.Acceptance{By: "key", Fingerprint: "signed", Warnings: []string{"no SBOM"}}

	for name, test := range map[string]struct {
		before v1alpha1.ArtifactRepositoryStatus
		change publication.Change
		want   string
	}{
		"first publication": {v1alpha1.ArtifactRepositoryStatus{}, publication.Promote(made(1)), "1.1.0 rules 100 history 1.1.0"},
		"next publication":  {promoted(made(1)), publication.Promote(made(2)), "1.2.0 rules 200 history 1.2.0 1.1.0+recipe"},
		"same again":        {promoted(made(1)), publication.Promote(made(1)), "1.1.0 rules 100 history 1.1.0"},
		"new name":          {promoted(lent), publication.Promote(renamed), "stable rules 100 vendor/app history stable 1.1.0+recipe"},
		"new name, confirmed": {
			promoted(made(1)), publication.Promote(renamed).Confirming(&signed), "stable signed 100 warnings history stable 1.1.0+recipe by key",
		},
		"new content ends the loan": {promoted(lent), publication.Promote(made(2)), "1.2.0 rules 200 history 1.2.0 1.1.0+recipe"},
		"restored":                  {promoted(lent), publication.Restore(rebuilt), "1.1.0 new rules 100 vendor/app history 1.1.0 1.1.0+recipe"},
		"restored unverified":       {promoted(made(1)), publication.Restore(unverified(made(1))), "1.1.0 rules 100 history 1.1.0"},
		"confirmed":                 {promoted(made(1)), publication.Confirm(signed), "1.1.0 signed 100 warnings history 1.1.0 by key"},
		"confirmed without a demand": {
			publication.Apply(promoted(made(1)), publication.Confirm(signed)), publication.Confirm(publication.Acceptance{}), "1.1.0  100 history 1.1.0",
		},
		"confirmed, no artifact":       {v1alpha1.ArtifactRepositoryStatus{}, publication.Confirm(signed), "nothing"},
		"withdrawn":                    {promoted(made(1)), publication.Withdraw(), "nothing withdrawn history 1.1.0"},
		"withdrawn, not confirmed":     {promoted(made(1)), publication.Withdraw().Confirming(&signed), "nothing withdrawn history 1.1.0"},
		"withdrawn again":              {publication.Apply(promoted(made(1)), publication.Withdraw()), publication.Withdraw(), "nothing withdrawn history 1.1.0"},
		"removed":                      {promoted(made(1)), publication.Remove(), "nothing withdrawn history 1.1.0"},
		"published after a withdrawal": {publication.Apply(promoted(made(1)), publication.Withdraw()), publication.Promote(made(2)), "1.2.0 rules 200 withdrawn history 1.2.0 1.1.0"},
		"the same after a withdrawal":  {publication.Apply(promoted(made(1)), publication.Withdraw()), publication.Promote(made(1)), "1.1.0 rules 100 history 1.1.0 1.1.0"},
		"after a record without a recipe": {
			v1alpha1.ArtifactRepositoryStatus{Artifact: &meta.Artifact{Revision: "0"}, ObservedTrust: "old"}, publication.Promote(unverified(made(1))), "1.1.0  0 history 1.1.0",
		},
	} {
		if got := inWords(publication.Apply(test.before, test.change)); got != test.want {
			t.Errorf("%s: found %q, expected %q", name, got, test.want)
		}
	}
}

// inWords returns the facts of a status: the artifact with its demands, size and lender, the
// withdrawn files, and the history.
func inWords(status v1alpha1.ArtifactRepositoryStatus) string {
	words := "nothing"
	if status.Artifact != nil {
		name, _, _ := strings.Cut(status.Artifact.Revision, "@")
		words = fmt.Sprintf("%s %s %d", name, status.ObservedTrust, status.Record.Size)
		if lender := status.Record.ImageRepository; lender != "" {
			words += " " + lender
		}
	} else if status.Record != nil || status.Format+status.ObservedContent+status.ObservedTrust != "" {
		words += " but leftovers"
	}
	if len(status.TrustWarnings) > 0 {
		words += " warnings"
	}
	if len(status.Withdrawn) > 0 {
		words += " withdrawn"
	}
	if len(status.History) > 0 {
		words += " history"
	}
	for _, entry := range status.History {
		name, _, _ := strings.Cut(entry.Revision, "@")
		words += " " + name
		if entry.Recipe != nil && entry.FileDigest != "" {
			words += "+recipe"
		}
		if entry.VerifiedBy != "" {
			words += " by " + entry.VerifiedBy
		}
	}
	return words
}

func TestARemovalForgetsTheLatestImage(t *testing.T) {
	status := promoted(made(1))
	status.LatestRef = &imagev1.ImageRef{Tag: "1.2.0"}
	if after := publication.Apply(status, publication.Withdraw()); after.LatestRef == nil {
		t.Error("a withdrawal forgot the latest image")
	}
	if after := publication.Apply(status, publication.Remove()); after.LatestRef != nil {
		t.Error("a removal kept the latest image")
	}
}

func TestAHistoryIsBounded(t *testing.T) {
	var status v1alpha1.ArtifactRepositoryStatus
	for i := range 3 * v1alpha1.MaxHistory {
		status = publication.Apply(status, publication.Promote(made(i+1)))
	}
	if len(status.History) != v1alpha1.MaxHistory || status.History[0].Tag != fmt.Sprintf("1.%d.0", 3*v1alpha1.MaxHistory) {
		t.Errorf("found %d entries, the newest %q", len(status.History), status.History[0].Tag)
	}
}

func TestClearNamesTheFieldsThatItEmpties(t *testing.T) {
	status := promoted(made(1))
	after, removed := publication.Clear(status)
	if got, want := strings.Join(removed, " "), "artifact record format observedContent observedTrust"; got != want {
		t.Errorf("found %q, expected %q", got, want)
	}
	if len(after.Withdrawn) != 1 || after.Withdrawn[0] != "sha256:"+hex(1) {
		t.Errorf("withdrawn are %v", after.Withdrawn)
	}
	if _, removed := publication.Clear(after); len(removed) > 0 {
		t.Errorf("cleared twice, it removed %v", removed)
	}
}
