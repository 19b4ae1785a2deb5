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

	"github.com/image-source/image-source-controller/api/v1alpha1"
	"github.com/image-source/image-source-controller/pkg/fault"
)

// NamespaceOptIn is the value of --namespace-opt-in.
type NamespaceOptIn string

const (
	// NamespaceOptInLabel publishes only in namespaces that carry the label.
	NamespaceOptInLabel NamespaceOptIn = "label"
	// NamespaceOptInNone publishes in every namespace: for clusters of one tenant.
	NamespaceOptInNone NamespaceOptIn = "none"
)

// Rules are what the platform sets for all namespaces.
type Rules struct {
	// NamespaceOptIn says whether a namespace must carry the label.
	NamespaceOptIn NamespaceOptIn
	// NoCrossNamespaceRefs forbids ImageRepositories of another namespace. It
	// goes with watching a single namespace too: no other one is seen then.
	NoCrossNamespaceRefs bool
	// RequireTrustPolicy refuses images in namespaces that no TrustPolicy which
	// enforces governs.
	RequireTrustPolicy bool
}

// Verdict is what an opt-in comes to. Where several things must hold, the
// lowest verdict of them is that of all.
type Verdict int

const (
	// Off means that it is not a source; what was generated is removed.
	Off Verdict = iota
	// Keep means that it cannot be told, because a value is none that is accepted or an
	// object is missing. What exists stays, nothing new is made.
	Keep
	// On means that it is a source.
	On
)

// Mark is the value of useAsSource on one object; nil where it is absent.
type Mark *string

// markOf returns the mark in a map of labels or annotations.
func markOf(m map[string]string) Mark {
	if value, ok := m[v1alpha1.UseAsSource]; ok {
		return &value
	}
	return nil
}

// Marks are the facts that decide whether something may be a source.
type Marks struct {
	// Namespace is the label of the policy's namespace.
	Namespace Mark
	// Policy is the annotation of the ImagePolicy.
	Policy Mark
	// PolicyOwned tells that an ArtifactRepository controls the ImagePolicy.
	PolicyOwned bool
	// Repository is what is known of the ImageRepository.
	Repository RepositoryMarks
}

// RepositoryMarks are the facts about an ImageRepository.
type RepositoryMarks struct {
	// Missing tells that there is no such object.
	Missing bool
	// Mark is its annotation.
	Mark Mark
	// Foreign tells that it is of another namespace than the policy.
	Foreign bool
	// Admits tells that its accessFrom lets the policy's namespace in.
	Admits bool
}

// Place is where a mark is written.
type Place string

const (
	// OnNamespace is the label of the namespace.
	OnNamespace Place = "namespace"
	// OnRepository is the annotation of the ImageRepository.
	OnRepository Place = "ImageRepository"
	// OnPolicy is the annotation of the ImagePolicy.
	OnPolicy Place = "ImagePolicy"
)

// Warning is something that a person should hear about once.
type Warning struct {
	// Place that carries what the warning is about.
	Place Place
	// Value that stands there; empty where the warning is about its absence.
	Value string
	// Reason is a reason of api/v1alpha1.
	Reason string
	// Message says what was found, what was expected and what to do.
	Message string
}

// Decision is whether something may be a source, and why not.
type Decision struct {
	// Verdict of all that was asked.
	Verdict Verdict
	// Why is empty when the verdict is On, else a sentence for a person.
	Why string
	// Warnings that the facts give rise to.
	Warnings []Warning
}

// DecidePolicy tells whether an ImagePolicy is a source by itself. Of the marks,
// the policy's decides before the repository's, and that before the namespace's.
func (r Rules) DecidePolicy(m Marks) Decision {
	if m.PolicyOwned {
		return Decision{Verdict: Off, Why: "the ImagePolicy belongs to an ArtifactRepository, which publishes it"}
	}
	wanted := r.wanted(m)
	permitted := r.DecidePermission(m)
	switch {
	case wanted.Verdict == Off:
		return wanted
	case permitted.Verdict == Off && wanted.Verdict == On:
		permitted.Warnings = append(permitted.Warnings, Warning{
			Place: OnPolicy, Value: permitted.Why, Reason: v1alpha1.ReasonAccessDenied,
			Message: "the image is not published: " + permitted.Why,
		})
		return permitted
	case permitted.Verdict < wanted.Verdict:
		permitted.Warnings = append(permitted.Warnings, wanted.Warnings...)
		return permitted
	default:
		wanted.Warnings = append(wanted.Warnings, permitted.Warnings...)
		return wanted
	}
}

// DecidePermission tells whether anything may be published that follows a
// policy with these marks, by whichever object asks for it: the namespace must
// have opted in and, where the ImageRepository is of another namespace, its
// owner must consent.
func (r Rules) DecidePermission(m Marks) Decision {
	namespace := r.DecideNamespace(m.Namespace)
	if namespace.Verdict == Off || !m.Repository.Foreign {
		return namespace
	}
	consent := r.consent(m.Repository)
	if consent.Verdict < namespace.Verdict {
		return consent
	}
	return namespace
}

// DecideNamespace tells whether a namespace with this label has opted in.
func (r Rules) DecideNamespace(label Mark) Decision {
	switch {
	case label != nil && (*label == v1alpha1.UseAsSourceEnabled || *label == v1alpha1.UseAsSourceAll):
		return Decision{Verdict: On}
	case label != nil:
		return unclear(OnNamespace, *label)
	case r.NamespaceOptIn == NamespaceOptInNone:
		return Decision{Verdict: On}
	default:
		return Decision{Verdict: Off, Why: fmt.Sprintf(
			"the namespace has not opted in: whoever runs the platform sets the label %s=%s on it", v1alpha1.UseAsSource, v1alpha1.UseAsSourceEnabled)}
	}
}

// wanted tells what the marks ask for, permitted or not.
func (r Rules) wanted(m Marks) Decision {
	switch {
	case m.Policy != nil:
		return annotated(OnPolicy, *m.Policy)
	case m.Repository.Missing:
		return Decision{Verdict: Keep, Why: "the ImageRepository that the ImagePolicy refers to does not exist"}
	case m.Repository.Mark != nil && !m.Repository.Foreign:
		return annotated(OnRepository, *m.Repository.Mark)
	case m.Namespace == nil:
		return Decision{Verdict: Off, Why: "nothing asks for it"}
	}
	switch *m.Namespace {
	case v1alpha1.UseAsSourceAll:
		return Decision{Verdict: On}
	case v1alpha1.UseAsSourceEnabled:
		return Decision{Verdict: Off, Why: "nothing asks for it"}
	default:
		return Decision{Verdict: Keep, Why: "the label of the namespace has a value that is not accepted"}
	}
}

// consent tells whether the owner of an ImageRepository hands its content to
// another namespace: listing tags for others (accessFrom) is one thing, handing
// them what was pulled with the owner's credentials is another.
func (r Rules) consent(m RepositoryMarks) Decision {
	deny := func(why string) Decision { return Decision{Verdict: Off, Why: why} }
	switch {
	case r.NoCrossNamespaceRefs:
		return deny("the ImageRepository is of another namespace, and cross-namespace references are disabled (--no-cross-namespace-refs or --watch-all-namespaces=false)")
	case m.Missing:
		return Decision{Verdict: Keep, Why: "the ImageRepository that the ImagePolicy refers to does not exist"}
	case !m.Admits:
		return deny("the ImageRepository is of another namespace, and its spec.accessFrom does not admit this one")
	case m.Mark == nil || *m.Mark == v1alpha1.UseAsSourceFalse:
		return deny(fmt.Sprintf("the ImageRepository is of another namespace: its owner consents with the annotation %s=%s on it",
			v1alpha1.UseAsSource, v1alpha1.UseAsSourceTrue))
	default:
		return annotated(OnRepository, *m.Mark)
	}
}

// annotated reads the value of an annotation.
func annotated(place Place, value string) Decision {
	switch value {
	case v1alpha1.UseAsSourceTrue:
		return Decision{Verdict: On}
	case v1alpha1.UseAsSourceFalse:
		return Decision{Verdict: Off, Why: fmt.Sprintf("the %s is annotated %s=%s", place, v1alpha1.UseAsSource, v1alpha1.UseAsSourceFalse)}
	default:
		return unclear(place, value)
	}
}

// unclear is the decision about a value that is none of those accepted: a typo
// must not delete a source.
func unclear(place Place, value string) Decision {
	kind, accepted := "annotation", fmt.Sprintf("%q or %q", v1alpha1.UseAsSourceTrue, v1alpha1.UseAsSourceFalse)
	if place == OnNamespace {
		kind, accepted = "label", fmt.Sprintf("%q or %q", v1alpha1.UseAsSourceEnabled, v1alpha1.UseAsSourceAll)
	}
	why := fmt.Sprintf("the %s %s of the %s has the value %s, accepted are %s: what is published stays, nothing new is published",
		kind, v1alpha1.UseAsSource, place, fault.Quote(value), accepted)
	return Decision{
		Verdict:  Keep,
		Why:      why,
		Warnings: []Warning{{Place: place, Value: value, Reason: v1alpha1.ReasonInvalidSpec, Message: why}},
	}
}
