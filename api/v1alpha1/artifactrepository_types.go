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
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	imagev1 "github.com/fluxcd/image-reflector-controller/api/v1"
	"github.com/fluxcd/pkg/apis/meta"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"
)

// ArtifactRepositoryKind is the name of the kind.
const ArtifactRepositoryKind = "ArtifactRepository"

// MaxHistory is how many publications a status remembers.
const MaxHistory = 10

// MaxWithdrawn is how many withdrawn files a status remembers.
const MaxWithdrawn = 10

// MaxRequestBytes is the length of the longest reconcile request that a status
// repeats. For a longer one it keeps the hash.
const MaxRequestBytes = 256

// MaxSettingsBytes is how many bytes of content settings, as JSON, a status repeats: more
// than a spec that the schema accepts has, unless it needs escapes. For more it keeps the hash.
const MaxSettingsBytes = 72 << 10

// MaxFormerSettingsBytes is the same for each entry of the history, which has up to ten.
const MaxFormerSettingsBytes = 2 << 10

// ArtifactRepositorySpec says which image to publish, how to reach it, whom to
// trust, and how to read it.
//
// +kubebuilder:validation:XValidation:rule="has(self.image) != has(self.imagePolicyRef)",message="set exactly one of image and imagePolicyRef: image names a repository, imagePolicyRef follows an ImagePolicy of this namespace"
// +kubebuilder:validation:XValidation:rule="!has(self.imagePolicyRef) || size(self.imagePolicyRef.name) > 0",message="imagePolicyRef.name must name an ImagePolicy of this namespace"
// +kubebuilder:validation:XValidation:rule="!has(self.imagePolicyRef) || (!has(self.tag) && !has(self.policy) && !has(self.filterTags))",message="tag, policy and filterTags go with image only: with imagePolicyRef the ImagePolicy picks the tag; set digest to pin one"
// +kubebuilder:validation:XValidation:rule="!has(self.imagePolicyRef) || (!has(self.provider) && !has(self.secretRef) && !has(self.serviceAccountName) && !has(self.certSecretRef) && !has(self.proxySecretRef) && !has(self.insecure))",message="provider, secretRef, serviceAccountName, certSecretRef, proxySecretRef and insecure go with image only: with imagePolicyRef they are set on the ImageRepository"
// +kubebuilder:validation:XValidation:rule="(!has(self.secretRef) || size(self.secretRef.name) > 0) && (!has(self.certSecretRef) || size(self.certSecretRef.name) > 0) && (!has(self.proxySecretRef) || size(self.proxySecretRef.name) > 0)",message="secretRef.name, certSecretRef.name and proxySecretRef.name must each name a Secret of this namespace: remove the one that is empty"
// +kubebuilder:validation:XValidation:rule="!has(self.image) || has(self.tag) || has(self.digest) || has(self.policy)",message="with image, set one of tag, digest and policy: there is no default tag"
// +kubebuilder:validation:XValidation:rule="!has(self.tag) || !has(self.policy)",message="tag and policy exclude each other: remove tag, or remove policy and filterTags (to pin what policy picks, set digest)"
// +kubebuilder:validation:XValidation:rule="!has(self.filterTags) || has(self.policy)",message="filterTags needs policy: it filters the tags that policy orders"
// +kubebuilder:validation:XValidation:rule="!has(self.policy) || [has(self.policy.semver), has(self.policy.alphabetical), has(self.policy.numerical)].filter(x, x).size() == 1",message="set exactly one of policy.semver, policy.alphabetical and policy.numerical"
type ArtifactRepositorySpec struct {
	// Interval at which a tag is looked at again, and whether the file is
	// stored, at most 8760h. Unset: the interval of the ImageRepository that the
	// image comes from, else 10m.
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=64
	// +kubebuilder:validation:XValidation:rule="self.matches('^([0-9]+([.][0-9]+)?(ms|s|m|h))+$') && duration(self) >= duration('1s') && duration(self) <= duration('8760h')",message="interval must be a duration such as 10m or 1h30m, at least 1s and at most 8760h, which is a year"
	// +optional
	Interval *metav1.Duration `json:"interval,omitempty"`

	// Timeout bounds one attempt: resolve, verify, fetch and store. From 1ms to
	// less than 1h. Unset: 60s.
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=64
	// +kubebuilder:validation:XValidation:rule="self.matches('^([0-9]+([.][0-9]+)?(ms|s|m))+$') && duration(self) >= duration('1ms') && duration(self) < duration('1h')",message="timeout must be a duration such as 90s or 1m30s, at least 1ms and less than 1h, and without hours"
	// +optional
	Timeout *metav1.Duration `json:"timeout,omitempty"`

	// Suspend freezes what is published: nothing is resolved or fetched until
	// it is false again. Where a namespace opts out, it is withdrawn all the same.
	// +optional
	Suspend bool `json:"suspend,omitempty"`

	// ImagePolicyRef names the ImagePolicy of the same namespace whose pick is
	// published. Registry access comes from its ImageRepository.
	// +optional
	ImagePolicyRef *meta.LocalObjectReference `json:"imagePolicyRef,omitempty"`

	// Image is the repository to publish from, such as
	// ghcr.io/stefanprodan/podinfo-deploy, with no tag and no digest. An
	// oci:// prefix is accepted and means the same. Names follow the OCI
	// Distribution Specification and have at most 255 characters.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=261
	// +kubebuilder:validation:XValidation:rule="!self.contains('@')",message="image must not contain a digest: put it into spec.digest"
	// +kubebuilder:validation:XValidation:rule="!self.matches('^(oci://)?[^@]*:[^/@]*(@|$)')",message="image must not contain a tag: put it into spec.tag"
	// +kubebuilder:validation:XValidation:rule="self.matches('^(oci://)?(([a-zA-Z0-9]([a-zA-Z0-9-]*[a-zA-Z0-9])?([.][a-zA-Z0-9]([a-zA-Z0-9-]*[a-zA-Z0-9])?)*|[[][0-9a-fA-F:]+[]])(:[1-9][0-9]{0,4})?/[a-z0-9]+(([.]|_|__|-+)[a-z0-9]+)*(/[a-z0-9]+(([.]|_|__|-+)[a-z0-9]+)*)*|[a-z0-9]+((_|__|-+)[a-z0-9]+)*(/[a-z0-9]+(([.]|_|__|-+)[a-z0-9]+)*)*|[a-z0-9]+(([.]|_|__|-+)[a-z0-9]+)*)(:[^/@]*)?(@.*)?$')",message="image must be the name of a repository such as ghcr.io/org/app: a host, then lower case letters and digits, separated by one of . _ __ / or by dashes, with no scheme but oci://"
	// +optional
	Image string `json:"image,omitempty"`

	// Tag is the tag to publish; it is looked at again each interval, because
	// tags move. With image only. Beside digest it is only what the digest is
	// called, in the revision: the registry is never asked for it.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=256
	// +kubebuilder:validation:XValidation:rule="!self.matches('(^|@)sha[0-9]+:')",message="tag must not contain a digest: put it into spec.digest, beside or in place of tag"
	// +kubebuilder:validation:XValidation:rule="self.matches('^[A-Za-z0-9_][A-Za-z0-9._-]{0,127}$') || self.matches('(^|@)sha[0-9]+:')",message="tag must be a tag such as v1.0.0: at most 128 letters, digits and the characters . _ - and none of . - at its beginning (Helm writes _ for the + of a version)"
	// +optional
	Tag string `json:"tag,omitempty"`

	// Digest is the manifest to publish. Beside policy or imagePolicyRef it is
	// the pin: exactly this is published, whatever the policy picks.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=256
	// +kubebuilder:validation:XValidation:rule="self.matches('^sha256:[a-f0-9]{64}$')",message="digest must be sha256: and 64 hexadecimal digits in lower case, and nothing else: put a tag into spec.tag, and the repository into spec.image"
	// +optional
	Digest string `json:"digest,omitempty"`

	// FilterTags narrows the tags that policy orders, and extracts the part of
	// them that is ordered. As on ImagePolicy.
	// +optional
	FilterTags *imagev1.TagFilter `json:"filterTags,omitempty"`

	// Policy picks the newest tag of image. As on ImagePolicy.
	// +optional
	Policy *imagev1.ImagePolicyChoice `json:"policy,omitempty"`

	// Provider is the cloud whose identity opens the registry. Unset: generic,
	// which uses secretRef and serviceAccountName. As on OCIRepository.
	// +kubebuilder:validation:Enum=generic;aws;azure;gcp
	// +optional
	Provider string `json:"provider,omitempty"`

	// SecretRef names a Secret of type kubernetes.io/dockerconfigjson.
	// +optional
	SecretRef *meta.LocalObjectReference `json:"secretRef,omitempty"`

	// ServiceAccountName names a ServiceAccount whose image pull secrets open
	// the registry or, with a cloud provider, whose workload identity does.
	// +kubebuilder:validation:MaxLength=253
	// +optional
	ServiceAccountName string `json:"serviceAccountName,omitempty"`

	// CertSecretRef names a Secret with a CA certificate (ca.crt), a client
	// certificate (tls.crt) and its key (tls.key), or both.
	// +optional
	CertSecretRef *meta.LocalObjectReference `json:"certSecretRef,omitempty"`

	// ProxySecretRef names a Secret with the address of a proxy and, if it asks
	// for them, username and password.
	// +optional
	ProxySecretRef *meta.LocalObjectReference `json:"proxySecretRef,omitempty"`

	// Insecure allows plain HTTP.
	// +optional
	Insecure bool `json:"insecure,omitempty"`

	// Verify says whose signature the image must carry. As on OCIRepository.
	// What platform administrators demand with TrustPolicies is demanded besides.
	// +kubebuilder:validation:XValidation:rule="self.provider != 'cosign' || has(self.secretRef) || (has(self.matchOIDCIdentity) && size(self.matchOIDCIdentity) > 0)",message="cosign without secretRef verifies keyless signatures, which anybody can make: list at least one identity in matchOIDCIdentity"
	// +kubebuilder:validation:XValidation:rule="self.provider != 'notation' || has(self.secretRef)",message="notation needs secretRef: a Secret with trustpolicy.json and certificates"
	// +kubebuilder:validation:XValidation:rule="(!has(self.secretRef) || size(self.secretRef.name) > 0) && (!has(self.trustedRootSecretRef) || size(self.trustedRootSecretRef.name) > 0)",message="secretRef.name and trustedRootSecretRef.name must each name a Secret: remove the one that is empty"
	// +optional
	Verify *sourcev1.OCIRepositoryVerification `json:"verify,omitempty"`

	// Format pins how the artifact is read; an artifact of another format is
	// refused. Unset: Auto, which detects it from the media types.
	// +kubebuilder:validation:Enum=Auto;Flux;Helm;Tekton;Imgpkg;Files;Kyverno;Image
	// +optional
	Format string `json:"format,omitempty"`

	// Platform picks the manifest of an image index, as os/architecture or
	// os/architecture/variant. Unset: linux/amd64.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=128
	// +kubebuilder:validation:XValidation:rule="self.matches('^[a-z0-9]+/[a-z0-9_]+(/[a-z0-9]+)?$')",message="platform must be os/architecture or os/architecture/variant in lower case, such as linux/amd64 or linux/arm/v7"
	// +optional
	Platform string `json:"platform,omitempty"`

	// LayerSelector picks one layer by its media type and says whether to
	// extract or to copy it. As on OCIRepository; it overrides the detection
	// of the format.
	// +optional
	LayerSelector *sourcev1.OCILayerSelector `json:"layerSelector,omitempty"`

	// Ignore are patterns of files to leave out, in the format of .sourceignore
	// (which is that of .gitignore), at most 16384 characters. As on OCIRepository.
	// +kubebuilder:validation:MaxLength=16384
	// +optional
	Ignore *string `json:"ignore,omitempty"`
}

// ArtifactRepositoryStatus is the record of what is published. The
// ExternalArtifact of the same name is its copy.
type ArtifactRepositoryStatus struct {
	// ObservedGeneration is the generation of the spec that the conditions speak of.
	// +optional
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`

	// LatestRef is the image that was last resolved, published or not.
	// +optional
	LatestRef *imagev1.ImageRef `json:"latestRef,omitempty"`

	// Format is the format that the published content was read as.
	// +optional
	Format string `json:"format,omitempty"`

	// Artifact is what is published.
	// +optional
	Artifact *meta.Artifact `json:"artifact,omitempty"`

	// History lists what was published, newest first.
	// +kubebuilder:validation:MaxItems=10
	// +optional
	History []Publication `json:"history,omitempty"`

	// Withdrawn lists the files that were taken out of the record last because they
	// must not be had, newest first, by the digest of their bytes. No replica serves
	// them, even if it had no part in the withdrawal, until they are published anew.
	// +kubebuilder:validation:MaxItems=10
	// +kubebuilder:validation:items:Pattern=`^sha256:[a-f0-9]{64}$`
	// +optional
	Withdrawn []string `json:"withdrawn,omitempty"`

	// Record is the recipe of what is published: enough to make the same bytes
	// again from the registry.
	// +optional
	Record *Recipe `json:"record,omitempty"`

	// ObservedContent is the hash of the settings that decide how an artifact
	// becomes content: ignore, layerSelector, format, platform and the version
	// of the archive format.
	// +optional
	ObservedContent string `json:"observedContent,omitempty"`

	// ObservedTrust is the fingerprint of the keys, identities, roots and rules
	// that accepted what is published.
	// +optional
	ObservedTrust string `json:"observedTrust,omitempty"`

	// TrustWarnings say what TrustPolicies that only warn would refuse of what is
	// published.
	// +kubebuilder:validation:MaxItems=10
	// +optional
	TrustWarnings []string `json:"trustWarnings,omitempty"`

	// Decision tells the steps of the last decision about what is published.
	// +optional
	Decision *Decision `json:"decision,omitempty"`

	// Conditions are Ready, Reconciling, Stalled, ArtifactInStorage and SourceVerified.
	// +listType=map
	// +listMapKey=type
	// +optional
	Conditions []metav1.Condition `json:"conditions,omitempty"`

	meta.ReconcileRequestStatus `json:",inline"`

	// ObservedRequests are the reconcile requests seen on the objects beside this one.
	// +optional
	ObservedRequests *ObservedRequests `json:"observedRequests,omitempty"`
}

// Publication is one line of the history.
type Publication struct {
	// Revision as consumers saw it.
	Revision string `json:"revision"`
	// Tag that was resolved; empty when there was none.
	// +optional
	Tag string `json:"tag,omitempty"`
	// Digest of the image's manifest.
	Digest string `json:"digest"`
	// Format that the content was read as.
	// +optional
	Format string `json:"format,omitempty"`
	// VerifiedBy names who verified the image; empty when nobody did.
	// +optional
	VerifiedBy string `json:"verifiedBy,omitempty"`
	// PublishedAt is when it was published.
	PublishedAt metav1.Time `json:"publishedAt"`
	// FileDigest is the digest of the file that consumers fetched. It and recipe are
	// empty for the latest publication, whose file and recipe are artifact and record, and
	// for a publication that was withdrawn.
	// +optional
	FileDigest string `json:"fileDigest,omitempty"`
	// Recipe makes the file again. Content settings of more than 2 KiB are recorded
	// as their hash.
	// +optional
	Recipe *Recipe `json:"recipe,omitempty"`
}

// Recipe is how published bytes were made. Two recipes that are equal make
// equal bytes.
type Recipe struct {
	// Image is the repository that the content came from.
	Image string `json:"image"`
	// ImageRepository is the one of another namespace, as namespace/name, by whose access
	// the content was fetched. The consent of its owner counts as long as the content is
	// published, whatever the spec refers to.
	// +optional
	ImageRepository string `json:"imageRepository,omitempty"`
	// Digest of the image's manifest.
	Digest string `json:"digest"`
	// Format that was asked for; empty for the one that was detected.
	// +optional
	Format string `json:"format,omitempty"`
	// Platform that was asked for; empty for the default.
	// +optional
	Platform string `json:"platform,omitempty"`
	// LayerSelector that was asked for.
	// +optional
	LayerSelector *sourcev1.OCILayerSelector `json:"layerSelector,omitempty"`
	// Ignore are the patterns that were asked for.
	// +optional
	Ignore *string `json:"ignore,omitempty"`
	// SettingsHash stands for format, platform, layerSelector and ignore where they
	// take more than 72 KiB, as in a spec that was stored before they had limits, or
	// more than 2 KiB in an entry of the history. The same bytes can be made again only
	// while the spec has settings of this hash.
	// +optional
	SettingsHash string `json:"settingsHash,omitempty"`
	// ArchiveVersion is the version of the archive format.
	// +optional
	ArchiveVersion int `json:"archiveVersion,omitempty"`
	// Size is how many bytes of the image were fetched, as they are in the
	// registry.
	// +optional
	Size int64 `json:"size,omitempty"`
}

// ObservedRequests are values of the annotation
// reconcile.fluxcd.io/requestedAt that were seen on objects beside the
// ArtifactRepository itself. For a value of more than 256 bytes its hash is kept,
// as in lastHandledReconcileAt.
type ObservedRequests struct {
	// ImagePolicy is the value seen on the ImagePolicy.
	// +optional
	ImagePolicy string `json:"imagePolicy,omitempty"`
	// ImageRepository is the value seen on the ImageRepository.
	// +optional
	ImageRepository string `json:"imageRepository,omitempty"`
	// ExternalArtifact is the value seen on the ExternalArtifact.
	// +optional
	ExternalArtifact string `json:"externalArtifact,omitempty"`
}

const (
	// DefaultInterval is used where neither the object nor an ImageRepository
	// names one.
	DefaultInterval = 10 * time.Minute
	// DefaultTimeout bounds an attempt where the object names no timeout.
	DefaultTimeout = 60 * time.Second
	// MaxTimeout bounds an attempt whatever the object names.
	MaxTimeout = time.Hour
)

// GetConditions returns the conditions of the status.
func (in *ArtifactRepository) GetConditions() []metav1.Condition { return in.Status.Conditions }

// SetConditions replaces the conditions of the status.
func (in *ArtifactRepository) SetConditions(conditions []metav1.Condition) {
	in.Status.Conditions = conditions
}

// GetArtifact returns what is published, nil when nothing is.
func (in *ArtifactRepository) GetArtifact() *meta.Artifact { return in.Status.Artifact }

// GetTimeout returns the bound of one attempt.
func (in *ArtifactRepository) GetTimeout() time.Duration {
	if in.Spec.Timeout == nil || in.Spec.Timeout.Duration <= 0 {
		return DefaultTimeout
	}
	return min(in.Spec.Timeout.Duration, MaxTimeout)
}

// +kubebuilder:object:root=true
// +kubebuilder:storageversion
// +kubebuilder:subresource:status
// +kubebuilder:resource:shortName=artifactrepo,categories=all;fluxcd;fluxcd-sources
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`
// +kubebuilder:printcolumn:name="Status",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].message`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
// +kubebuilder:printcolumn:name="Format",type=string,priority=1,JSONPath=`.status.format`
// +kubebuilder:printcolumn:name="Revision",type=string,priority=1,JSONPath=`.status.artifact.revision`
// +kubebuilder:printcolumn:name="Image",type=string,priority=1,JSONPath=`.status.latestRef.name`
// +kubebuilder:metadata:annotations="kustomize.toolkit.fluxcd.io/substitute=disabled"

// ArtifactRepository publishes an image as the ExternalArtifact of the same
// name, for Kustomizations and HelmReleases to reference.
type ArtifactRepository struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// Spec says what to publish.
	// +required
	Spec ArtifactRepositorySpec `json:"spec"`
	// Status records what is published.
	// +kubebuilder:default={"observedGeneration":-1}
	// +optional
	Status ArtifactRepositoryStatus `json:"status,omitempty"`
}

// ArtifactRepositoryList is a list of ArtifactRepository objects.
//
// +kubebuilder:object:root=true
type ArtifactRepositoryList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []ArtifactRepository `json:"items"`
}
