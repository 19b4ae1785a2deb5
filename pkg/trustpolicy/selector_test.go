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

package trustpolicy

import (
	"testing"

	. "github.com/onsi/gomega"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/image-source/image-source-controller/api/v1alpha1"
)

// An invalid selector governs the namespaces that it may mean, and no others.
func TestAnInvalidSelectorGovernsThePossibleNamespaces(t *testing.T) {
	in := func(key string, values ...string) metav1.LabelSelectorRequirement {
		return metav1.LabelSelectorRequirement{Key: key, Operator: metav1.LabelSelectorOpIn, Values: values}
	}
	for sentence, c := range map[string]struct {
		selector         metav1.LabelSelector
		governs, ignores []labels.Set
	}{
		"a value that no label has": {
			selector: metav1.LabelSelector{MatchLabels: map[string]string{"stage": "prod "}},
			governs:  []labels.Set{{"stage": "prod"}, {"stage": "test"}}, ignores: []labels.Set{{}, {"team": "a"}},
		},
		"a value in a list": {
			selector: metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{in("stage", "prod", "no value!")}},
			governs:  []labels.Set{{"stage": "prod"}, {"stage": "test"}}, ignores: []labels.Set{{}},
		},
		"a key that no label has": {
			selector: metav1.LabelSelector{MatchLabels: map[string]string{"stage ": "prod"}},
			governs:  []labels.Set{{}, {"stage": "prod"}},
		},
		"a key that no label has beside one that can be read": {
			selector: metav1.LabelSelector{MatchLabels: map[string]string{"stage ": "prod", "team": "a"}}, //nolint:gocritic // no label has such a key
			governs:  []labels.Set{{"team": "a"}, {"team": "a", "stage": "test"}}, ignores: []labels.Set{{}, {"team": "b"}},
		},
		"an operator that does not exist": {
			selector: metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{{Key: "stage", Operator: "Is"}, in("team", "a")}},
			governs:  []labels.Set{{"team": "a"}}, ignores: []labels.Set{{"stage": "prod"}},
		},
		"a value to be excluded": {
			selector: metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{
				{Key: "stage", Operator: metav1.LabelSelectorOpNotIn, Values: []string{"prod "}},
			}},
			governs: []labels.Set{{}, {"stage": "prod"}},
		},
	} {
		t.Run(sentence, func(t *testing.T) {
			g, policy := NewWithT(t), &v1alpha1.TrustPolicy{}
			policy.Spec.NamespaceSelector = c.selector
			parsed := Parse(policy)
			g.Expect(parsed.Unreadable).To(ContainSubstring("spec.namespaceSelector cannot be read"))
			for _, namespace := range c.governs {
				g.Expect(parsed.Namespaces.Matches(namespace)).To(BeTrue(), "%v", namespace)
			}
			for _, namespace := range c.ignores {
				g.Expect(parsed.Namespaces.Matches(namespace)).To(BeFalse(), "%v", namespace)
			}
		})
	}
}
