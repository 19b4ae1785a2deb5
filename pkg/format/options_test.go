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

package format_test

import (
	"testing"

	sourcev1 "github.com/fluxcd/source-controller/api/v1"
	. "github.com/onsi/gomega"

	"github.com/image-source/image-source-controller/api/v1alpha1"
	"github.com/image-source/image-source-controller/pkg/format"
)

func TestDefaultsThatAreWrittenOutAreDefaults(t *testing.T) {
	g := NewWithT(t)
	unset := format.ContentHash(format.Options{})
	g.Expect(unset).To(MatchRegexp(`^[0-9a-f]{64}$`))
	for name, o := range map[string]format.Options{
		"nothing":                   {},
		"Auto":                      {Format: v1alpha1.FormatAuto},
		"linux/amd64":               {Platform: "linux/amd64"},
		"a selector of nothing":     {LayerSelector: &sourcev1.OCILayerSelector{}},
		"an ignore without pattern": {Ignore: new("\n# comment\n")},
		"limits and the reference":  {Limits: format.Limits{Entries: 3}, Image: image},
	} {
		g.Expect(format.IsDefault(o)).To(BeTrue(), name)
		g.Expect(format.ContentHash(o)).To(Equal(unset), name)
	}
}

func TestEverySettingChangesTheHash(t *testing.T) {
	g := NewWithT(t)
	seen := map[string]string{format.ContentHash(format.Options{}): "unset"}
	for name, o := range map[string]format.Options{
		"a format":             {Format: v1alpha1.FormatFlux},
		"another format":       {Format: v1alpha1.FormatImage},
		"a platform":           {Platform: "linux/arm64"},
		"a media type":         {LayerSelector: &sourcev1.OCILayerSelector{MediaType: "a/b"}},
		"a copied media type":  {LayerSelector: &sourcev1.OCILayerSelector{MediaType: "a/b", Operation: "copy"}},
		"an extraction":        {LayerSelector: &sourcev1.OCILayerSelector{Operation: "extract"}},
		"a copy":               {LayerSelector: &sourcev1.OCILayerSelector{Operation: "copy"}},
		"an ignore":            {Ignore: new("*.md")},
		"another ignore":       {Ignore: new("*.txt")},
		"an ignore and format": {Ignore: new("*.md"), Format: v1alpha1.FormatFlux},
	} {
		g.Expect(format.IsDefault(o)).To(BeFalse(), name)
		hash := format.ContentHash(o)
		g.Expect(seen).NotTo(HaveKey(hash), "%s and %s", name, seen[hash])
		seen[hash] = name
	}
}

func TestTheEndOfTheIgnoreRulesIsNoSetting(t *testing.T) {
	g := NewWithT(t)
	block := format.ContentHash(format.Options{Ignore: new("*.md\n*.txt\n")})
	g.Expect(format.ContentHash(format.Options{Ignore: new("*.md\n*.txt")})).To(Equal(block))
	g.Expect(format.ContentHash(format.Options{Ignore: new("*.md\n*.txt\n\n")})).To(Equal(block))
}

func TestASelectorExtractsUnlessItIsToldToCopy(t *testing.T) {
	g := NewWithT(t)
	unset := format.Options{LayerSelector: &sourcev1.OCILayerSelector{MediaType: "a/b"}}
	extract := format.Options{LayerSelector: &sourcev1.OCILayerSelector{MediaType: "a/b", Operation: "extract"}}
	g.Expect(format.ContentHash(unset)).To(Equal(format.ContentHash(extract)))
}
