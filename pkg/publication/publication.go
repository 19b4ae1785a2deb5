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

// Package publication reads the status of an ArtifactRepository: the published file, the
// former ones and the withdrawn ones.
package publication

import (
	"encoding/json"
	"path"
	"slices"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/fluxcd/pkg/apis/meta"

	"github.com/image-source/image-source-controller/api/v1alpha1"
	"github.com/image-source/image-source-controller/pkg/bridge"
	"github.com/image-source/image-source-controller/pkg/reference"
	"github.com/image-source/image-source-controller/pkg/store"
)

// extension of the name of a published file, after its digest.
const extension = ".tar.gz"

// Key is the storage key of an object.
func Key(obj metav1.Object) store.Key {
	return store.Key{Namespace: obj.GetNamespace(), Name: obj.GetName()}
}

// Latest returns the newest entry of the history, or its zero value.
func Latest(obj *v1alpha1.ArtifactRepository) v1alpha1.Publication {
	if len(obj.Status.History) == 0 {
		return v1alpha1.Publication{}
	}
	return obj.Status.History[0]
}

// Current returns the recorded publication, or nil.
func Current(obj *v1alpha1.ArtifactRepository) *bridge.Published {
	status := obj.Status
	if !isRecorded(status) {
		return nil
	}
	digest, _ := reference.ParseDigest(status.Record.Digest)
	return &bridge.Published{
		Repository: status.Record.Image,
		Digest:     digest,
		Content:    status.ObservedContent,
		Artifact:   *status.Artifact,
		Format:     status.Format,
		VerifiedBy: Latest(obj).VerifiedBy,
	}
}

// isRecorded reports whether a status has an artifact and a recipe to build it again.
func isRecorded(status v1alpha1.ArtifactRepositoryStatus) bool {
	if status.Artifact == nil || status.Record == nil {
		return false
	}
	_, err := reference.ParseDigest(status.Record.Digest)
	return err == nil
}

// Former returns obj as it was when it had published the file with this sha256, and the time
// of the next publication; nil if no recipe in the history makes the file.
func Former(obj *v1alpha1.ArtifactRepository, sha256 string) (former *v1alpha1.ArtifactRepository, replaced time.Time) {
	if obj.Status.Artifact == nil {
		return nil, time.Time{}
	}
	digest := "sha256:" + sha256
	for i, entry := range obj.Status.History {
		if i == 0 || entry.Recipe == nil || entry.FileDigest != digest {
			continue
		}
		former = obj.DeepCopy()
		status := &former.Status
		status.History = status.History[i:]
		status.Record, status.Format, status.ObservedContent = status.History[0].Recipe, entry.Format, ""
		status.Artifact = &meta.Artifact{Path: path.Dir(status.Artifact.Path) + "/" + sha256 + extension, Digest: digest, Revision: entry.Revision}
		return former, obj.Status.History[i-1].PublishedAt.Time
	}
	return nil, time.Time{}
}

// Retire moves the recipe of the published file into its entry of the history, before a new
// record.
func Retire(status *v1alpha1.ArtifactRepositoryStatus) {
	digest, ok := FileDigest(status.Artifact)
	if !ok || len(status.History) == 0 || status.Record == nil || !status.Artifact.HasRevision(status.History[0].Revision) {
		return
	}
	status.History[0].FileDigest = digest
	status.History[0].Recipe = Shorten(status.Record.DeepCopy(), status.ObservedContent, v1alpha1.MaxFormerSettingsBytes)
}

// Shorten replaces the content settings of a recipe by their hash if they take more than a
// number of bytes as JSON.
func Shorten(recipe *v1alpha1.Recipe, hash string, maxBytes int) *v1alpha1.Recipe {
	settings := v1alpha1.Recipe{Format: recipe.Format, Platform: recipe.Platform, LayerSelector: recipe.LayerSelector, Ignore: recipe.Ignore}
	if encoded, err := json.Marshal(settings); err != nil || len(encoded) > maxBytes {
		recipe.Format, recipe.Platform, recipe.LayerSelector, recipe.Ignore = "", "", nil, nil
		recipe.SettingsHash = hash
	}
	return recipe
}

// Names reports whether the record names the file with this sha256.
func Names(obj *v1alpha1.ArtifactRepository, sha256 string) bool {
	return obj != nil && IsFile(obj.Status.Artifact, sha256)
}

// IsFile reports whether an artifact is the file with this sha256.
func IsFile(artifact *meta.Artifact, sha256 string) bool {
	digest, ok := FileDigest(artifact)
	return ok && digest == "sha256:"+sha256
}

// FileDigest returns the digest in the name of an artifact's file. The digest of an artifact
// of an earlier release may use another algorithm.
func FileDigest(artifact *meta.Artifact) (digest string, ok bool) {
	if artifact == nil {
		return "", false
	}
	file, err := reference.ParseDigest("sha256:" + strings.TrimSuffix(path.Base(artifact.Path), extension))
	return file.String(), err == nil
}

// Withdrawn returns the sha256 of each withdrawn file in the record.
func Withdrawn(obj *v1alpha1.ArtifactRepository) []string {
	var files []string
	for _, digest := range obj.Status.Withdrawn {
		files = append(files, strings.TrimPrefix(digest, "sha256:"))
	}
	return files
}

// IsWithdrawn reports whether the record lists the file with this sha256 as withdrawn.
func IsWithdrawn(obj *v1alpha1.ArtifactRepository, sha256 string) bool {
	return slices.Contains(Withdrawn(obj), sha256)
}
