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

// choice is what an opt-in comes to. Where several things must hold, the
// lowest of them is that of all.
type choice int

const (
	// choiceOff means that it is not a source; what was generated is removed.
	choiceOff choice = iota
	// choiceKeep means that it cannot be told, because a value is none that is accepted or an
	// object is missing. What exists stays, nothing new is made.
	choiceKeep
	// choiceOn means that it is a source.
	choiceOn
)

// marking is the value of useAsSource on one object; nil where it is absent.
type marking *string

// markOf returns the mark in a map of labels or annotations.
func markOf(m map[string]string) marking {
	if value, ok := m[v1alpha1.UseAsSource]; ok {
		return &value
	}
	return nil
}

// markings are the facts that decide whether something may be a source.
type markings struct {
	// Namespace is the label of the policy's namespace.
	Namespace marking
	// Policy is the annotation of the ImagePolicy.
	Policy marking
	// PolicyOwned tells that an ArtifactRepository controls the ImagePolicy.
	PolicyOwned bool
	// Repository is what is known of the ImageRepository.
	Repository repositoryMarkings
}

// repositoryMarkings are the facts about an ImageRepository.
type repositoryMarkings struct {
	// Missing tells that there is no such object.
	Missing bool
	// Mark is its annotation.
	Mark marking
	// Foreign tells that it is of another namespace than the policy.
	Foreign bool
	// Admits tells that its accessFrom lets the policy's namespace in.
	Admits bool
}

// place is where a mark is written.
type place string

const (
	// onNamespace is the label of the namespace.
	onNamespace place = "namespace"
	// onRepository is the annotation of the ImageRepository.
	onRepository place = "ImageRepository"
	// onPolicy is the annotation of the ImagePolicy.
	onPolicy place = "ImagePolicy"
)

// warning is something that a person should hear about once.
type warning struct {
	// Place that carries what the warning is about.
	Place place
	// Value that stands there; empty where the warning is about its absence.
	Value string
	// Reason is a reason of api/v1alpha1.
	Reason string
	// Message says what was found, what was expected and what to do.
	Message string
}

// decision is whether something may be a source, and why not.
type decision struct {
	// Choice of all that was asked.
	Choice choice
	// Why is empty when the choice is choiceOn, else a sentence for a person.
	Why string
	// Warnings that the facts give rise to.
	Warnings []warning
	// Lent tells that it is about the access by which the published content was fetched,
	// and not about the wishes of the spec.
	Lent bool
}

// decidePolicy tells whether an ImagePolicy is a source by itself. Of the marks,
// the policy's decides before the repository's, and that before the namespace's.
func (r Rules) decidePolicy(m markings) decision {
	if m.PolicyOwned {
		return decision{Choice: choiceOff, Why: "the ImagePolicy belongs to an ArtifactRepository, which publishes it"}
	}
	wanted := r.wanted(m)
	permitted := r.decidePermission(m)
	switch {
	case wanted.Choice == choiceOff:
		return wanted
	case permitted.Choice == choiceOff && wanted.Choice == choiceOn:
		permitted.Warnings = append(permitted.Warnings, warning{
			Place: onPolicy, Value: permitted.Why, Reason: v1alpha1.ReasonAccessDenied,
			Message: "the image is not published: " + permitted.Why,
		})
		return permitted
	case permitted.Choice < wanted.Choice:
		permitted.Warnings = append(permitted.Warnings, wanted.Warnings...)
		return permitted
	default:
		wanted.Warnings = append(wanted.Warnings, permitted.Warnings...)
		return wanted
	}
}

// decidePermission tells whether anything may be published that follows a
// policy with these marks, by whichever object asks for it: the namespace must
// have opted in and, where the ImageRepository is of another namespace, its
// owner must consent.
func (r Rules) decidePermission(m markings) decision {
	namespace := r.decideNamespace(m.Namespace)
	if namespace.Choice == choiceOff || !m.Repository.Foreign {
		return namespace
	}
	consent := r.consent(m.Repository)
	if consent.Choice < namespace.Choice {
		return consent
	}
	return namespace
}

// decideNamespace tells whether a namespace with this label has opted in.
func (r Rules) decideNamespace(label marking) decision {
	switch {
	case label != nil && (*label == v1alpha1.UseAsSourceEnabled || *label == v1alpha1.UseAsSourceAll):
		return decision{Choice: choiceOn}
	case label != nil:
		return unclear(onNamespace, *label)
	case r.NamespaceOptIn == NamespaceOptInNone:
		return decision{Choice: choiceOn}
	default:
		return decision{Choice: choiceOff, Why: fmt.Sprintf(
			"the namespace has not opted in: whoever runs the platform sets the label %s=%s on it", v1alpha1.UseAsSource, v1alpha1.UseAsSourceEnabled)}
	}
}

// wanted tells what the marks ask for, permitted or not.
func (r Rules) wanted(m markings) decision {
	switch {
	case m.Policy != nil:
		return annotated(onPolicy, *m.Policy)
	case m.Repository.Missing:
		return decision{Choice: choiceKeep, Why: "the ImageRepository that the ImagePolicy refers to does not exist"}
	case m.Repository.Mark != nil && !m.Repository.Foreign:
		return annotated(onRepository, *m.Repository.Mark)
	case m.Namespace == nil:
		return decision{Choice: choiceOff, Why: "nothing asks for it"}
	}
	switch *m.Namespace {
	case v1alpha1.UseAsSourceAll:
		return decision{Choice: choiceOn}
	case v1alpha1.UseAsSourceEnabled:
		return decision{Choice: choiceOff, Why: "nothing asks for it"}
	default:
		return decision{Choice: choiceKeep, Why: "the label of the namespace has a value that is not accepted"}
	}
}

// consent tells whether the owner of an ImageRepository hands its content to
// another namespace: listing tags for others (accessFrom) is one thing, handing
// them what was pulled with the owner's credentials is another.
func (r Rules) consent(m repositoryMarkings) decision {
	deny := func(why string) decision { return decision{Choice: choiceOff, Why: why} }
	switch {
	case r.NoCrossNamespaceRefs:
		return deny("the ImageRepository is of another namespace, and cross-namespace references are disabled (--no-cross-namespace-refs or --watch-all-namespaces=false)")
	case m.Missing:
		return decision{Choice: choiceKeep, Why: "the ImageRepository that the ImagePolicy refers to does not exist"}
	case !m.Admits:
		return deny("the ImageRepository is of another namespace, and its spec.accessFrom does not admit this one")
	case m.Mark == nil || *m.Mark == v1alpha1.UseAsSourceFalse:
		return deny(fmt.Sprintf("the ImageRepository is of another namespace: its owner consents with the annotation %s=%s on it",
			v1alpha1.UseAsSource, v1alpha1.UseAsSourceTrue))
	default:
		return annotated(onRepository, *m.Mark)
	}
}

// annotated reads the value of an annotation.
func annotated(place place, value string) decision {
	switch value {
	case v1alpha1.UseAsSourceTrue:
		return decision{Choice: choiceOn}
	case v1alpha1.UseAsSourceFalse:
		return decision{Choice: choiceOff, Why: fmt.Sprintf("the %s is annotated %s=%s", place, v1alpha1.UseAsSource, v1alpha1.UseAsSourceFalse)}
	default:
		return unclear(place, value)
	}
}

// unclear is the decision about a value that is none of those accepted: a typo
// must not delete a source.
func unclear(place place, value string) decision {
	kind, accepted := "annotation", fmt.Sprintf("%q or %q", v1alpha1.UseAsSourceTrue, v1alpha1.UseAsSourceFalse)
	if place == onNamespace {
		kind, accepted = "label", fmt.Sprintf("%q or %q", v1alpha1.UseAsSourceEnabled, v1alpha1.UseAsSourceAll)
	}
	why := fmt.Sprintf("the %s %s of the %s has the value %s, accepted are %s: what is published stays, nothing new is published",
		kind, v1alpha1.UseAsSource, place, fault.Quote(value), accepted)
	return decision{
		Choice:   choiceKeep,
		Why:      why,
		Warnings: []warning{{Place: place, Value: value, Reason: v1alpha1.ReasonInvalidSpec, Message: why}},
	}
}
