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

package source_test

import (
	"strings"
	"testing"

	"github.com/image-source/image-source-controller/api/v1alpha1"
	"github.com/image-source/image-source-controller/pkg/source"
)

func marked(value string) source.Mark { return &value }

// TestWhetherAPolicyIsASource walks through every combination of marks and
// checks the verdict against the rules as a person would read them aloud.
func TestWhetherAPolicyIsASource(t *testing.T) {
	namespaces := map[string]source.Mark{"absent": nil, "enabled": marked("enabled"), "all": marked("all"), "typo": marked("Enabled")}
	annotations := map[string]source.Mark{"absent": nil, "true": marked("true"), "false": marked("false"), "typo": marked("yes")}
	for _, optIn := range []source.NamespaceOptIn{source.NamespaceOptInLabel, source.NamespaceOptInNone} {
		for ns, namespace := range namespaces {
			for pol, policy := range annotations {
				for repo, repository := range annotations {
					got := source.Rules{NamespaceOptIn: optIn}.OptIn(source.Facts{
						Namespace: namespace, Policy: policy, Repository: source.RepositoryFacts{Mark: repository},
					})
					want := expected(optIn, ns, pol, repo)
					if got.Choice != want {
						t.Errorf("opt-in %s, namespace %s, policy %s, repository %s: got %d, want %d (%s)", optIn, ns, pol, repo, got.Choice, want, got.Why)
					}
					if (got.Choice == source.On) != (got.Why == "") {
						t.Errorf("opt-in %s, namespace %s, policy %s, repository %s: verdict %d with the reason %q", optIn, ns, pol, repo, got.Choice, got.Why)
					}
				}
			}
		}
	}
}

// expected is the precedence table in words, independent of the code under test.
func expected(optIn source.NamespaceOptIn, namespace, policy, repository string) source.Choice {
	asked := policy
	if asked == "absent" {
		asked = repository
	}
	if asked == "absent" {
		switch namespace {
		case "all":
			return source.On
		case "typo":
			return source.Undecided
		default:
			return source.Off
		}
	}
	if asked == "false" {
		return source.Off
	}
	if namespace == "absent" && optIn == source.NamespaceOptInLabel {
		return source.Off
	}
	if asked == "typo" || namespace == "typo" {
		return source.Undecided
	}
	return source.On
}

func TestOptInDecisions(t *testing.T) {
	open := source.RepositoryFacts{Foreign: true, Admits: true, Mark: marked("true")}
	with := func(m source.RepositoryFacts, change func(*source.RepositoryFacts)) source.RepositoryFacts {
		change(&m)
		return m
	}
	cases := map[string]struct {
		rules   source.Rules
		marks   source.Facts
		want    source.Choice
		why     string
		warning string
	}{
		"a policy that an ArtifactRepository controls is never a source by itself": {
			marks: source.Facts{Namespace: marked("all"), Policy: marked("true"), PolicyOwned: true}, want: source.Off, why: "belongs to an ArtifactRepository",
		},
		"an ImageRepository of another namespace that admits and consents is used": {
			marks: source.Facts{Namespace: marked("enabled"), Policy: marked("true"), Repository: open}, want: source.On,
		},
		"the annotation of an ImageRepository of another namespace is consent, not a default": {
			marks: source.Facts{Namespace: marked("enabled"), Repository: open}, want: source.Off, why: "no label or annotation asks",
		},
		"a namespace labelled all covers policies of ImageRepositories of other namespaces that consent": {
			marks: source.Facts{Namespace: marked("all"), Repository: open}, want: source.On,
		},
		"withdrawn consent removes the source": {
			marks: source.Facts{Namespace: marked("enabled"), Policy: marked("true"), Repository: with(open, func(m *source.RepositoryFacts) { m.Mark = nil })},
			want:  source.Off, why: "its owner consents", warning: "useAsSource=true",
		},
		"consent that is refused removes the source": {
			marks: source.Facts{Namespace: marked("enabled"), Policy: marked("true"), Repository: with(open, func(m *source.RepositoryFacts) { m.Mark = marked("false") })},
			want:  source.Off, why: "its owner consents", warning: "its owner consents",
		},
		"a typo in the consent keeps the artifact": {
			marks: source.Facts{Namespace: marked("enabled"), Policy: marked("true"), Repository: with(open, func(m *source.RepositoryFacts) { m.Mark = marked("ture") })},
			want:  source.Undecided, why: `"ture"`, warning: `"true" or "false"`,
		},
		"an ImageRepository that does not admit the namespace is not used": {
			marks: source.Facts{Namespace: marked("enabled"), Policy: marked("true"), Repository: with(open, func(m *source.RepositoryFacts) { m.Admits = false })},
			want:  source.Off, why: "accessFrom", warning: "accessFrom",
		},
		"cross-namespace references can be disabled for the whole cluster": {
			rules: source.Rules{NamespaceOptIn: source.NamespaceOptInLabel, NoCrossNamespaceRefs: true},
			marks: source.Facts{Namespace: marked("enabled"), Policy: marked("true"), Repository: open},
			want:  source.Off, why: "--no-cross-namespace-refs", warning: "--no-cross-namespace-refs",
		},
		"disabling cross-namespace references leaves those of one namespace alone": {
			rules: source.Rules{NamespaceOptIn: source.NamespaceOptInLabel, NoCrossNamespaceRefs: true},
			marks: source.Facts{Namespace: marked("enabled"), Policy: marked("true"), Repository: source.RepositoryFacts{Admits: true}}, want: source.On,
		},
		"an annotated policy is a source before its ImageRepository exists": {
			marks: source.Facts{Namespace: marked("enabled"), Policy: marked("true"), Repository: source.RepositoryFacts{Missing: true}}, want: source.On,
		},
		"a policy with a missing ImageRepository keeps its source": {
			marks: source.Facts{Namespace: marked("enabled"), Repository: source.RepositoryFacts{Missing: true}}, want: source.Undecided, why: "does not exist",
		},
		"a missing foreign ImageRepository keeps the artifact": {
			marks: source.Facts{Namespace: marked("enabled"), Policy: marked("true"), Repository: source.RepositoryFacts{Missing: true, Foreign: true}}, want: source.Undecided, why: "does not exist",
		},
		"an annotated policy in a namespace that is off is told which label to set": {
			marks: source.Facts{Policy: marked("true")}, want: source.Off, why: "has not opted in", warning: v1alpha1.UseAsSource + "=enabled",
		},
		"a policy without an annotation in a namespace without the label gets no warning": {
			marks: source.Facts{}, want: source.Off, why: "no label or annotation asks",
		},
		"a typo in the annotation is told the accepted values": {
			marks: source.Facts{Namespace: marked("enabled"), Policy: marked("TRUE")}, want: source.Undecided, why: `"TRUE"`, warning: `"true" or "false"`,
		},
		"a typo in the label is told the accepted values": {
			marks: source.Facts{Namespace: marked("enable"), Policy: marked("true")}, want: source.Undecided, why: `"enable"`, warning: `"enabled" or "all"`,
		},
		"an empty annotation is a typo": {
			marks: source.Facts{Namespace: marked("enabled"), Policy: marked("")}, want: source.Undecided, why: `""`, warning: `"true" or "false"`,
		},
		"a very long value is cut": {
			marks: source.Facts{Namespace: marked("enabled"), Policy: marked(strings.Repeat("x", 10_000))}, want: source.Undecided, why: "xxx...", warning: "xxx...",
		},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			rules := c.rules
			if rules == (source.Rules{}) {
				rules.NamespaceOptIn = source.NamespaceOptInLabel
			}
			got := rules.OptIn(c.marks)
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

func TestTheZeroPermissionActsOnNoObject(t *testing.T) {
	var permission source.Permission
	if permission.Choice == source.On || permission.Choice == source.Off {
		t.Errorf("it is %d", permission.Choice)
	}
	if permission.Err() == nil {
		t.Error("it permits")
	}
}

// The owner of the access that fetched the published content keeps the right to consent,
// regardless of the current spec.
func TestTheLenderOfAnAccessHasASay(t *testing.T) {
	for sentence, c := range map[string]struct {
		lender source.RepositoryFacts
		want   source.Choice
	}{
		"consent":       {source.RepositoryFacts{Foreign: true, Admits: true, Mark: marked("true")}, source.On},
		"no consent":    {source.RepositoryFacts{Foreign: true, Admits: true}, source.Off},
		"a typo":        {source.RepositoryFacts{Foreign: true, Admits: true, Mark: marked("ture")}, source.On},
		"it is missing": {source.RepositoryFacts{Foreign: true, Missing: true}, source.On},
	} {
		s := newSituation().snapshot()
		s.Object.Status.Record = &v1alpha1.Recipe{ImageRepository: "owner/app"}
		s.Lender = &c.lender
		got := source.Rules{NamespaceOptIn: source.NamespaceOptInLabel}.Permission(s)
		if got.Choice != c.want || got.Lent != (c.want == source.Off) {
			t.Errorf("%s: got %d (%s)", sentence, got.Choice, got.Why)
		}
	}
}

func FuzzAnnotationValues(f *testing.F) {
	for _, value := range []string{"", "true", "false", "enabled", "all", "TRUE", "\x00", "\xff", "тrue"} {
		f.Add(value, value, value)
	}
	f.Fuzz(func(t *testing.T, namespace, policy, repository string) {
		got := source.Rules{NamespaceOptIn: source.NamespaceOptInLabel}.OptIn(source.Facts{
			Namespace: &namespace, Policy: &policy, Repository: source.RepositoryFacts{Mark: &repository},
		})
		optedIn := namespace == "enabled" || namespace == "all"
		if got.Choice == source.On && (!optedIn || policy != "true") {
			t.Errorf("namespace %q, policy %q, repository %q became a source", namespace, policy, repository)
		}
	})
}
