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

// Condition types beside Ready, Reconciling and Stalled of
// github.com/fluxcd/pkg/apis/meta.
const (
	// ArtifactInStorageCondition is true while the published bytes are stored
	// and match the record.
	ArtifactInStorageCondition = "ArtifactInStorage"
	// SourceVerifiedCondition tells whether the published digest carries a
	// signature that was asked for.
	SourceVerifiedCondition = "SourceVerified"
)

// Reasons of conditions and events. No other reason is used anywhere.
const (
	// ReasonSucceeded: what the spec asks for is published.
	ReasonSucceeded = "Succeeded"
	// ReasonNewArtifact: something new is published. Only events have it, as those of
	// Flux's sources do.
	ReasonNewArtifact = "NewArtifact"
	// ReasonProgressing: something new is recorded and about to be published.
	ReasonProgressing = "Progressing"
	// ReasonProgressingWithRetry: an attempt failed and another one follows.
	ReasonProgressingWithRetry = "ProgressingWithRetry"
	// ReasonSuspended: spec.suspend freezes what is published.
	ReasonSuspended = "Suspended"
	// ReasonDependencyNotReady: another object is missing or not ready.
	ReasonDependencyNotReady = "DependencyNotReady"
	// ReasonAccessDenied: an opt-in, accessFrom or consent is missing.
	ReasonAccessDenied = "AccessDenied"
	// ReasonAuthenticationFailed: the registry refused the credentials, or
	// they could not be read.
	ReasonAuthenticationFailed = "AuthenticationFailed"
	// ReasonImageNotFound: the registry has no such repository, tag or digest.
	ReasonImageNotFound = "ImageNotFound"
	// ReasonFetchFailed: the registry could not be reached or answered badly.
	ReasonFetchFailed = "FetchFailed"
	// ReasonUnsupportedMediaType: the artifact is of no format that is supported.
	ReasonUnsupportedMediaType = "UnsupportedMediaType"
	// ReasonInvalidArtifact: the artifact breaks the rules of its format.
	ReasonInvalidArtifact = "InvalidArtifact"
	// ReasonLimitExceeded: the artifact is over a limit that the platform set.
	ReasonLimitExceeded = "LimitExceeded"
	// ReasonVerificationError: no good signature was found.
	ReasonVerificationError = "VerificationError"
	// ReasonStorageOperationFailed: the local disk refused the bytes.
	ReasonStorageOperationFailed = "StorageOperationFailed"
	// ReasonNameConflict: an object of the needed name belongs to someone else.
	ReasonNameConflict = "NameConflict"
	// ReasonInvalidSpec: the spec asks for what cannot be.
	ReasonInvalidSpec = "InvalidSpec"
)
