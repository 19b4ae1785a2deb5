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

package pipeline_test

import (
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	. "github.com/onsi/gomega"

	"github.com/image-source/image-source-controller/api/v1alpha1"
	"github.com/image-source/image-source-controller/pkg/bridge"
	"github.com/image-source/image-source-controller/pkg/fault"
	"github.com/image-source/image-source-controller/pkg/pipeline"
	"github.com/image-source/image-source-controller/pkg/store"
)

var app = store.Key{Namespace: "apps", Name: "app"}

func TestRefusalsAreRemembered(t *testing.T) {
	image := bridge.Image{Repository: "example.com/app", Tag: "1", Digest: v1.Hash{Algorithm: "sha256", Hex: strings.Repeat("a", 64)}}
	stalled, retried := fault.Stallf(v1alpha1.ReasonInvalidArtifact, "no archive"), fault.Retryf(v1alpha1.ReasonFetchFailed, "not now")
	for title, c := range map[string]struct {
		do   func(p *pipeline.Pipeline)
		want error
	}{
		"nothing":                             {func(*pipeline.Pipeline) {}, nil},
		"after a success, no refusal":         {func(p *pipeline.Pipeline) { p.Remember(app, image, "x", nil) }, nil},
		"after a failure that time may heal":  {func(p *pipeline.Pipeline) { p.Remember(app, image, "x", retried) }, nil},
		"after the source is gone":            {func(p *pipeline.Pipeline) { p.Forget(app) }, nil},
		"after a refusal of another source":   {func(p *pipeline.Pipeline) { p.Remember(store.Key{Name: "other"}, image, "x", retried) }, stalled},
		"after a refusal of an unknown image": {func(p *pipeline.Pipeline) { p.Remember(app, bridge.Image{Repository: "example.com/app"}, "x", stalled) }, nil},
	} {
		t.Run(title, func(t *testing.T) {
			g, p := NewWithT(t), &pipeline.Pipeline{}
			if title != "nothing" {
				p.Remember(app, image, "x", stalled)
				g.Expect(p.Refused(app, image, "x")).To(BeIdenticalTo(stalled))
				g.Expect(p.Refused(app, image, "y")).NotTo(HaveOccurred())
				g.Expect(p.Refused(store.Key{Name: "other"}, image, "x")).NotTo(HaveOccurred())
			}
			c.do(p)
			if c.want == nil {
				g.Expect(p.Refused(app, image, "x")).NotTo(HaveOccurred())
			} else {
				g.Expect(p.Refused(app, image, "x")).To(BeIdenticalTo(c.want))
			}
		})
	}
}
