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

package source

import (
	"fmt"

	"github.com/image-source/image-source-controller/api/v1alpha1"
	"github.com/image-source/image-source-controller/pkg/fault"
)

// NamespaceOptIn is the value of --namespace-opt-in.
type NamespaceOptIn string

const (
	// NamespaceOptInLabel publishes only in namespaces with the label.
	NamespaceOptInLabel NamespaceOptIn = "label"
	// NamespaceOptInNone publishes in every namespace: for clusters of one tenant.
	NamespaceOptInNone NamespaceOptIn = "none"
)

// Rules are the settings of the platform for all namespaces.
type Rules struct {
	// NamespaceOptIn decides whether a namespace must carry the label.
	NamespaceOptIn NamespaceOptIn
	// NoCrossNamespaceRefs forbids ImageRepositories of another namespace. It is also set
	// when the controller watches a single namespace: it sees no other one then.
	NoCrossNamespaceRefs bool
	// RequireTrustPolicy refuses images in namespaces without an enforcing TrustPolicy.
	RequireTrustPolicy bool
}

// Choice is the result of an opt-in. The lowest of several choices decides. The zero value
// acts on nothing.
type Choice int

const (
	// Off is not a source. Generated objects are removed, and the published artifact is
	// withdrawn.
	Off Choice = iota - 1
	// Undecided has an invalid value or a missing object. Existing objects stay, no new one is
	// made.
	Undecided
	// On is a source.
	On
)

// Place is the object with a mark.
type Place string

const (
	// OnNamespace is the label of the namespace.
	OnNamespace Place = "namespace"
	// OnRepository is the annotation of the ImageRepository.
	OnRepository Place = "ImageRepository"
	// OnPolicy is the annotation of the ImagePolicy.
	OnPolicy Place = "ImagePolicy"
)

// Warning is a message for the user, to be sent once.
type Warning struct {
	// Place of the reason for the warning.
	Place Place
	// Value at this place; empty if the warning is about its absence.
	Value string
	// Reason is a reason of api/v1alpha1.
	Reason string
	// Message: found, expected, to do.
	Message string
}

// Permission is the answer whether an object may be a source, with the reason. The zero
// value acts on nothing.
type Permission struct {
	// Choice of all rules together.
	Choice Choice
	// Why is empty if the choice is On, else a sentence for the user.
	Why string
	// Warnings about the facts.
	Warnings []Warning
	// Lent: the permission is about the access that fetched the published content, and not
	// about the wishes of the spec.
	Lent bool
}

// Err returns the reason for a missing permission; nil if it is given.
//
// Errors: AccessDenied (wait).
func (p Permission) Err() error {
	if p.Choice == On {
		return nil
	}
	return fault.Waitf(v1alpha1.ReasonAccessDenied, "%s", p.Why)
}

// Permission decides about a publication from a snapshot. If the spec names the image, only
// the label of the namespace counts, and the consent of the owner of the access that fetched
// the published content.
func (r Rules) Permission(s Snapshot) Permission {
	facts := s.Facts()
	followed := r.namespace(facts.Namespace)
	if s.Policy != nil && s.Object.Spec.ImagePolicyRef != nil {
		followed = r.follow(facts)
	}
	if s.Lender == nil || followed.Choice == Off {
		return followed
	}
	if consent := r.consent(*s.Lender); consent.Choice == Off {
		return Permission{Choice: Off, Lent: true, Why: fmt.Sprintf(
			"the published content was fetched with the access of ImageRepository %s, which no longer allows it: %s", s.Object.Status.Record.ImageRepository, consent.Why)}
	}
	return followed
}

// OptIn decides whether an ImagePolicy is a source by itself. The mark of the policy takes
// precedence over the mark of the repository, and this one over the mark of the namespace.
func (r Rules) OptIn(m Facts) Permission {
	if m.PolicyOwned {
		return Permission{Choice: Off, Why: "the ImagePolicy belongs to an ArtifactRepository, which publishes it"}
	}
	wanted := r.wanted(m)
	permitted := r.follow(m)
	switch {
	case wanted.Choice == Off:
		return wanted
	case permitted.Choice == Off && wanted.Choice == On:
		permitted.Warnings = append(permitted.Warnings, Warning{
			Place: OnPolicy, Value: permitted.Why, Reason: v1alpha1.ReasonAccessDenied,
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

// follow decides about a publication that follows a policy with these marks, for any object:
// the namespace must have opted in, and the owner of an ImageRepository of another namespace
// must consent.
func (r Rules) follow(m Facts) Permission {
	namespace := r.namespace(m.Namespace)
	if namespace.Choice == Off || !m.Repository.Foreign {
		return namespace
	}
	consent := r.consent(m.Repository)
	if consent.Choice < namespace.Choice {
		return consent
	}
	return namespace
}

// namespace decides whether a namespace with this label has opted in.
func (r Rules) namespace(label Mark) Permission {
	switch {
	case label != nil && (*label == v1alpha1.UseAsSourceEnabled || *label == v1alpha1.UseAsSourceAll):
		return Permission{Choice: On}
	case label != nil:
		return unclear(OnNamespace, *label)
	case r.NamespaceOptIn == NamespaceOptInNone:
		return Permission{Choice: On}
	default:
		return Permission{Choice: Off, Why: fmt.Sprintf(
			"the namespace has not opted in: the administrator of the platform has to set the label %s=%s on it", v1alpha1.UseAsSource, v1alpha1.UseAsSourceEnabled)}
	}
}

// wanted returns the wish of the marks, permitted or not.
func (r Rules) wanted(m Facts) Permission {
	switch {
	case m.Policy != nil:
		return annotated(OnPolicy, *m.Policy)
	case m.Repository.Missing:
		return Permission{Choice: Undecided, Why: "the ImageRepository that the ImagePolicy refers to does not exist"}
	case m.Repository.Mark != nil && !m.Repository.Foreign:
		return annotated(OnRepository, *m.Repository.Mark)
	case m.Namespace == nil:
		return Permission{Choice: Off, Why: "no label or annotation asks for it"}
	}
	switch *m.Namespace {
	case v1alpha1.UseAsSourceAll:
		return Permission{Choice: On}
	case v1alpha1.UseAsSourceEnabled:
		return Permission{Choice: Off, Why: "no label or annotation asks for it"}
	default:
		return Permission{Choice: Undecided, Why: "the label of the namespace has a value that is not accepted"}
	}
}

// consent decides whether the owner of an ImageRepository lets another namespace have its
// content. Listing tags for others (accessFrom) is one thing; content that was pulled with
// the owner's credentials is another.
func (r Rules) consent(m RepositoryFacts) Permission {
	deny := func(why string) Permission { return Permission{Choice: Off, Why: why} }
	switch {
	case r.NoCrossNamespaceRefs:
		return deny("the ImageRepository is of another namespace, and cross-namespace references are disabled (--no-cross-namespace-refs or --watch-all-namespaces=false)")
	case m.Missing:
		return Permission{Choice: Undecided, Why: "the ImageRepository that the ImagePolicy refers to does not exist"}
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
func annotated(place Place, value string) Permission {
	switch value {
	case v1alpha1.UseAsSourceTrue:
		return Permission{Choice: On}
	case v1alpha1.UseAsSourceFalse:
		return Permission{Choice: Off, Why: fmt.Sprintf("the %s is annotated %s=%s", place, v1alpha1.UseAsSource, v1alpha1.UseAsSourceFalse)}
	default:
		return unclear(place, value)
	}
}

// unclear is the decision about an invalid value: a typo must not delete a source.
func unclear(place Place, value string) Permission {
	kind, accepted := "annotation", fmt.Sprintf("%q or %q", v1alpha1.UseAsSourceTrue, v1alpha1.UseAsSourceFalse)
	if place == OnNamespace {
		kind, accepted = "label", fmt.Sprintf("%q or %q", v1alpha1.UseAsSourceEnabled, v1alpha1.UseAsSourceAll)
	}
	why := fmt.Sprintf("the %s %s of the %s has the value %s, expected %s: the published artifact stays, no new one is published",
		kind, v1alpha1.UseAsSource, place, fault.Quote(value), accepted)
	return Permission{
		Choice:   Undecided,
		Why:      why,
		Warnings: []Warning{{Place: place, Value: value, Reason: v1alpha1.ReasonInvalidSpec, Message: why}},
	}
}
