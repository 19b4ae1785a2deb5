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

	"github.com/image-source/image-source-controller/api/v1alpha1"
)

func marked(value string) marking { return &value }

// TestWhetherAPolicyIsASource walks through every combination of marks and
// checks the verdict against the rules as a person would read them aloud.
func TestWhetherAPolicyIsASource(t *testing.T) {
	namespaces := map[string]marking{"absent": nil, "enabled": marked("enabled"), "all": marked("all"), "typo": marked("Enabled")}
	annotations := map[string]marking{"absent": nil, "true": marked("true"), "false": marked("false"), "typo": marked("yes")}
	for _, optIn := range []NamespaceOptIn{NamespaceOptInLabel, NamespaceOptInNone} {
		for ns, namespace := range namespaces {
			for pol, policy := range annotations {
				for repo, repository := range annotations {
					got := Rules{NamespaceOptIn: optIn}.decidePolicy(markings{
						Namespace: namespace, Policy: policy, Repository: repositoryMarkings{Mark: repository},
					})
					want := expected(optIn, ns, pol, repo)
					if got.Choice != want {
						t.Errorf("opt-in %s, namespace %s, policy %s, repository %s: got %d, want %d (%s)", optIn, ns, pol, repo, got.Choice, want, got.Why)
					}
					if (got.Choice == choiceOn) != (got.Why == "") {
						t.Errorf("opt-in %s, namespace %s, policy %s, repository %s: verdict %d with the reason %q", optIn, ns, pol, repo, got.Choice, got.Why)
					}
				}
			}
		}
	}
}

// expected is the precedence table in words, independent of the code under test.
func expected(optIn NamespaceOptIn, namespace, policy, repository string) choice {
	asked := policy
	if asked == "absent" {
		asked = repository
	}
	if asked == "absent" {
		switch namespace {
		case "all":
			return choiceOn
		case "typo":
			return choiceKeep
		default:
			return choiceOff
		}
	}
	if asked == "false" {
		return choiceOff
	}
	if namespace == "absent" && optIn == NamespaceOptInLabel {
		return choiceOff
	}
	if asked == "typo" || namespace == "typo" {
		return choiceKeep
	}
	return choiceOn
}

func TestOptInDecisions(t *testing.T) {
	open := repositoryMarkings{Foreign: true, Admits: true, Mark: marked("true")}
	with := func(m repositoryMarkings, change func(*repositoryMarkings)) repositoryMarkings { change(&m); return m }
	cases := map[string]struct {
		rules   Rules
		marks   markings
		want    choice
		why     string
		warning string
	}{
		"a policy that an ArtifactRepository controls is never a source by itself": {
			marks: markings{Namespace: marked("all"), Policy: marked("true"), PolicyOwned: true}, want: choiceOff, why: "belongs to an ArtifactRepository",
		},
		"an ImageRepository of another namespace that admits and consents is used": {
			marks: markings{Namespace: marked("enabled"), Policy: marked("true"), Repository: open}, want: choiceOn,
		},
		"the annotation of an ImageRepository of another namespace is consent, not a default": {
			marks: markings{Namespace: marked("enabled"), Repository: open}, want: choiceOff, why: "nothing asks",
		},
		"a namespace labelled all covers policies of ImageRepositories of other namespaces that consent": {
			marks: markings{Namespace: marked("all"), Repository: open}, want: choiceOn,
		},
		"withdrawn consent removes the source": {
			marks: markings{Namespace: marked("enabled"), Policy: marked("true"), Repository: with(open, func(m *repositoryMarkings) { m.Mark = nil })},
			want:  choiceOff, why: "its owner consents", warning: "useAsSource=true",
		},
		"consent that is refused removes the source": {
			marks: markings{Namespace: marked("enabled"), Policy: marked("true"), Repository: with(open, func(m *repositoryMarkings) { m.Mark = marked("false") })},
			want:  choiceOff, why: "its owner consents", warning: "its owner consents",
		},
		"a typo in the consent keeps what there is": {
			marks: markings{Namespace: marked("enabled"), Policy: marked("true"), Repository: with(open, func(m *repositoryMarkings) { m.Mark = marked("ture") })},
			want:  choiceKeep, why: `"ture"`, warning: `"true" or "false"`,
		},
		"an ImageRepository that does not admit the namespace is not used": {
			marks: markings{Namespace: marked("enabled"), Policy: marked("true"), Repository: with(open, func(m *repositoryMarkings) { m.Admits = false })},
			want:  choiceOff, why: "accessFrom", warning: "accessFrom",
		},
		"cross-namespace references can be disabled for the whole cluster": {
			rules: Rules{NamespaceOptIn: NamespaceOptInLabel, NoCrossNamespaceRefs: true},
			marks: markings{Namespace: marked("enabled"), Policy: marked("true"), Repository: open},
			want:  choiceOff, why: "--no-cross-namespace-refs", warning: "--no-cross-namespace-refs",
		},
		"disabling cross-namespace references leaves those of one namespace alone": {
			rules: Rules{NamespaceOptIn: NamespaceOptInLabel, NoCrossNamespaceRefs: true},
			marks: markings{Namespace: marked("enabled"), Policy: marked("true"), Repository: repositoryMarkings{Admits: true}}, want: choiceOn,
		},
		"an annotated policy is a source before its ImageRepository exists": {
			marks: markings{Namespace: marked("enabled"), Policy: marked("true"), Repository: repositoryMarkings{Missing: true}}, want: choiceOn,
		},
		"a policy whose ImageRepository is gone keeps what its annotation gave": {
			marks: markings{Namespace: marked("enabled"), Repository: repositoryMarkings{Missing: true}}, want: choiceKeep, why: "does not exist",
		},
		"a foreign ImageRepository that is gone keeps what there is": {
			marks: markings{Namespace: marked("enabled"), Policy: marked("true"), Repository: repositoryMarkings{Missing: true, Foreign: true}}, want: choiceKeep, why: "does not exist",
		},
		"an annotated policy in a namespace that is off is told which label to set": {
			marks: markings{Policy: marked("true")}, want: choiceOff, why: "has not opted in", warning: v1alpha1.UseAsSource + "=enabled",
		},
		"a policy that asks for nothing in a namespace that is off hears nothing": {
			marks: markings{}, want: choiceOff, why: "nothing asks",
		},
		"a typo in the annotation is told the accepted values": {
			marks: markings{Namespace: marked("enabled"), Policy: marked("TRUE")}, want: choiceKeep, why: `"TRUE"`, warning: `"true" or "false"`,
		},
		"a typo in the label is told the accepted values": {
			marks: markings{Namespace: marked("enable"), Policy: marked("true")}, want: choiceKeep, why: `"enable"`, warning: `"enabled" or "all"`,
		},
		"an empty annotation is a typo": {
			marks: markings{Namespace: marked("enabled"), Policy: marked("")}, want: choiceKeep, why: `""`, warning: `"true" or "false"`,
		},
		"a very long value is cut": {
			marks: markings{Namespace: marked("enabled"), Policy: marked(strings.Repeat("x", 10_000))}, want: choiceKeep, why: "xxx...", warning: "xxx...",
		},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			rules := c.rules
			if rules == (Rules{}) {
				rules.NamespaceOptIn = NamespaceOptInLabel
			}
			got := rules.decidePolicy(c.marks)
			if got.Choice != c.want || !strings.Contains(got.Why, c.why) {
				t.Errorf("got verdict %d (%s), want %d (%s)", got.Choice, got.Why, c.want, c.why)
			}
			if c.warning == "" && len(got.Warnings) > 0 {
				t.Errorf("unexpected warnings %v", got.Warnings)
			}
			if c.warning != "" && (len(got.Warnings) != 1 || !strings.Contains(got.Warnings[0].Message, c.warning)) {
				t.Errorf("got warnings %v, want one that says %q", got.Warnings, c.warning)
			}
			for _, warning := range got.Warnings {
				if len(warning.Message) > 600 {
					t.Errorf("a warning of %d bytes", len(warning.Message))
				}
			}
		})
	}
}

func FuzzAnnotationValues(f *testing.F) {
	for _, value := range []string{"", "true", "false", "enabled", "all", "TRUE", "\x00", "\xff", "тrue"} {
		f.Add(value, value, value)
	}
	f.Fuzz(func(t *testing.T, namespace, policy, repository string) {
		got := Rules{NamespaceOptIn: NamespaceOptInLabel}.decidePolicy(markings{
			Namespace: &namespace, Policy: &policy, Repository: repositoryMarkings{Mark: &repository},
		})
		optedIn := namespace == "enabled" || namespace == "all"
		if got.Choice == choiceOn && (!optedIn || policy != "true") {
			t.Errorf("namespace %q, policy %q, repository %q became a source", namespace, policy, repository)
		}
	})
}
