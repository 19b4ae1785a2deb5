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

package v1alpha1

import (
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	sourcev1 "github.com/fluxcd/source-controller/api/v1"
)

// TrustPolicyKind is the name of the kind.
const TrustPolicyKind = "TrustPolicy"

// NoMatch says what becomes of an image that no policy of a governed namespace
// lists.
// +kubebuilder:validation:Enum=Refuse;Allow
type NoMatch string

const (
	// NoMatchRefuse refuses it.
	NoMatchRefuse NoMatch = "Refuse"
	// NoMatchAllow lets it pass, if every policy does that governs the namespace
	// and enforces.
	NoMatchAllow NoMatch = "Allow"
)

// Mode says what a policy does about an image that it does not accept.
// +kubebuilder:validation:Enum=Enforce;Warn
type Mode string

const (
	// ModeEnforce refuses it.
	ModeEnforce Mode = "Enforce"
	// ModeWarn lets it pass, and says that it would be refused.
	ModeWarn Mode = "Warn"
)

// TrustPolicySpec says whom a policy governs, and what it accepts there.
type TrustPolicySpec struct {
	// NamespaceSelector selects the namespaces that the policy governs by their
	// labels. As everywhere in Kubernetes, {} selects every namespace.
	// +kubebuilder:validation:XValidation:rule="!has(self.matchExpressions) || self.matchExpressions.all(e, e.operator in ['In', 'NotIn'] ? has(e.values) && size(e.values) > 0 : e.operator in ['Exists', 'DoesNotExist'] && (!has(e.values) || size(e.values) == 0))",message="in matchExpressions, the operators In and NotIn need values, Exists and DoesNotExist must have none, and there are no others"
	// +kubebuilder:validation:XValidation:rule="!has(self.matchLabels) || self.matchLabels.all(key, size(key) <= 317)",message="in matchLabels, a key must have at most 317 characters: a prefix of 253, a slash and a name of 63"
	// +kubebuilder:validation:XValidation:rule="!has(self.matchLabels) || self.matchLabels.all(key, key.matches('^([a-z0-9]([a-z0-9-]*[a-z0-9])?([.][a-z0-9]([a-z0-9-]*[a-z0-9])?)*/)?[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?$'))",message="in matchLabels, a key must be one that a label can have, such as stage or example.com/stage"
	// +required
	NamespaceSelector metav1.LabelSelector `json:"namespaceSelector"`

	// Images are patterns for the names of repositories, such as ghcr.io/org/**.
	// A * stands for any characters inside one segment of the name, and ** for
	// any characters. They are compared with the canonical name: host in lower
	// case, without the default port, Docker Hub spelled out.
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=100
	// +listType=set
	// +required
	Images []ImagePattern `json:"images"`

	// NoMatch says what becomes of an image that no enforcing policy of a
	// governed namespace lists. Refuse, unless every enforcing policy that
	// governs the namespace says Allow; policies that only warn do not count.
	// +kubebuilder:default=Refuse
	// +optional
	NoMatch NoMatch `json:"noMatch,omitempty"`

	// Mode is Enforce or Warn, which publishes and says what would be refused.
	// +kubebuilder:default=Enforce
	// +optional
	Mode Mode `json:"mode,omitempty"`

	// Authorities are alternatives: the signature of any of them is enough. With
	// none of them no signature is demanded.
	// +kubebuilder:validation:MaxItems=20
	// +listType=map
	// +listMapKey=name
	// +optional
	Authorities []TrustAuthority `json:"authorities,omitempty"`

	// Formats that are accepted. Empty: all.
	// +kubebuilder:validation:MaxItems=10
	// +listType=set
	// +optional
	Formats []TrustFormat `json:"formats,omitempty"`

	// MaxArtifactBytes is the size of the largest artifact that is accepted: of
	// all that is fetched of it, as it is in the registry.
	// +kubebuilder:validation:XValidation:rule="quantity(string(self)).isGreaterThan(quantity('0'))",message="maxArtifactBytes must be more than nothing, such as 50Mi"
	// +optional
	MaxArtifactBytes *resource.Quantity `json:"maxArtifactBytes,omitempty"`
}

// ImagePattern matches canonical names of repositories.
// +kubebuilder:validation:MinLength=1
// +kubebuilder:validation:MaxLength=255
// +kubebuilder:validation:XValidation:rule="self.matches('^[A-Za-z0-9._:/*\\\\[\\\\]-]+$')",message="an image must be the name of a repository, in which * and ** stand for other characters: no scheme and no digest"
// +kubebuilder:validation:XValidation:rule="!self.contains('***')",message="an image must not have more than two * in a row"
// +kubebuilder:validation:XValidation:rule="!self.matches('^[^/]*[*][*]') || self.matches('^[*][*](/|$)')",message="in an image, ** must stand alone in the host: it would match across the first slash"
// +kubebuilder:validation:XValidation:rule="self == '**' || (self.contains('/') ? !self.startsWith('/') && !self.endsWith('/') && !self.contains('//') : !self.matches('[.:*]') && self != 'localhost')",message="an image must be a host and the name of a repository, such as ghcr.io/org/app or ghcr.io/**"
// +kubebuilder:validation:XValidation:rule="self.matches('^([^/]*[.:*][^/]*/|localhost/)?[^A-Z:\\\\[\\\\]]*$')",message="an image must have its path in lower case, and no tag"
// +kubebuilder:validation:XValidation:rule="self == '**' || self.matches('^(([a-zA-Z0-9*]([a-zA-Z0-9*-]*[a-zA-Z0-9*])?([.][a-zA-Z0-9*]([a-zA-Z0-9*-]*[a-zA-Z0-9*])?)*|[[][0-9a-fA-F:*]+[]])(:[1-9*][0-9*]{0,4})?/[a-z0-9*]+(([.]|_|__|-+)[a-z0-9*]+)*(/[a-z0-9*]+(([.]|_|__|-+)[a-z0-9*]+)*)*|[a-z0-9]+((_|__|-+)[a-z0-9]+)*(/[a-z0-9*]+(([.]|_|__|-+)[a-z0-9*]+)*)*)$')",message="an image must be one that a name can match: letters and digits, separated by one of . _ __ / or by dashes; a host has no dot at its end, and a port no leading zero"
type ImagePattern string

// TrustFormat is a format that an artifact can be read as, as status.format of an
// ArtifactRepository names it. Layer is what a layerSelector took from an image of
// none of the others, or of Tekton or Kyverno, whose objects are not checked in a
// layer alone.
// +kubebuilder:validation:Enum=Flux;Helm;Tekton;Imgpkg;Files;Kyverno;Image;Layer
type TrustFormat string

// TrustAuthority is one of those whose signature is enough.
type TrustAuthority struct {
	// Name by which conditions, events and histories call the authority.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	// +kubebuilder:validation:XValidation:rule="self.matches('^[a-z0-9]([a-z0-9-]*[a-z0-9])?$')",message="the name of an authority must have lower case letters, digits and dashes only, and no dash at either end, such as release-key"
	// +required
	Name string `json:"name"`

	// Verify says whose signature it is, as spec.verify of an ArtifactRepository.
	// Its Secrets are in the namespace of the controller.
	// +kubebuilder:validation:XValidation:rule="self.provider != 'cosign' || has(self.secretRef) || (has(self.matchOIDCIdentity) && size(self.matchOIDCIdentity) > 0)",message="cosign without secretRef verifies keyless signatures, which anybody can make: list at least one identity in matchOIDCIdentity"
	// +kubebuilder:validation:XValidation:rule="self.provider != 'notation' || has(self.secretRef)",message="notation needs secretRef: a Secret with trustpolicy.json and certificates"
	// +kubebuilder:validation:XValidation:rule="(!has(self.secretRef) || size(self.secretRef.name) > 0) && (!has(self.trustedRootSecretRef) || size(self.trustedRootSecretRef.name) > 0)",message="secretRef.name and trustedRootSecretRef.name must each name a Secret: remove the one that is empty"
	// +required
	Verify sourcev1.OCIRepositoryVerification `json:"verify"`
}

// TrustPolicyStatus says whether the policy can be applied as it is written.
type TrustPolicyStatus struct {
	// ObservedGeneration is the generation of the spec that the conditions speak of.
	// +optional
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`

	// Conditions are Ready, Reconciling and Stalled.
	// +listType=map
	// +listMapKey=type
	// +optional
	Conditions []metav1.Condition `json:"conditions,omitempty"`
}

// GetConditions returns the conditions of the status.
func (in *TrustPolicy) GetConditions() []metav1.Condition { return in.Status.Conditions }

// SetConditions replaces the conditions of the status.
func (in *TrustPolicy) SetConditions(conditions []metav1.Condition) {
	in.Status.Conditions = conditions
}

// It is in no category: whoever may list what is in a namespace may mostly not
// list what is in the cluster, and kubectl get all would fail for them.

// +kubebuilder:object:root=true
// +kubebuilder:storageversion
// +kubebuilder:subresource:status
// +kubebuilder:resource:scope=Cluster,shortName=trustpol
// +kubebuilder:printcolumn:name="Mode",type=string,JSONPath=`.spec.mode`
// +kubebuilder:printcolumn:name="NoMatch",type=string,JSONPath=`.spec.noMatch`
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`
// +kubebuilder:printcolumn:name="Status",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].message`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
// +kubebuilder:printcolumn:name="Images",type=string,priority=1,JSONPath=`.spec.images`
// +kubebuilder:metadata:annotations="kustomize.toolkit.fluxcd.io/substitute=disabled"

// TrustPolicy says what may be published in the namespaces that it governs,
// whoever writes what there: by whose signature, in which formats, of which size.
type TrustPolicy struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// Spec says whom the policy governs, and what it accepts.
	// +required
	Spec TrustPolicySpec `json:"spec"`
	// Status says whether it can be applied.
	// +kubebuilder:default={"observedGeneration":-1}
	// +optional
	Status TrustPolicyStatus `json:"status,omitempty"`
}

// TrustPolicyList is a list of TrustPolicy objects.
//
// +kubebuilder:object:root=true
type TrustPolicyList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []TrustPolicy `json:"items"`
}
