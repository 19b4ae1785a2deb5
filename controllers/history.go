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
	"github.com/image-source/image-source-controller/api/v1alpha1"
	"github.com/image-source/image-source-controller/pkg/bridge"
	"github.com/image-source/image-source-controller/pkg/reference"
)

func latestPublication(obj *v1alpha1.ArtifactRepository) v1alpha1.Publication {
	if len(obj.Status.History) == 0 {
		return v1alpha1.Publication{}
	}
	return obj.Status.History[0]
}

// publishedBy returns what the record says is published, nil when nothing is.
func publishedBy(obj *v1alpha1.ArtifactRepository) *bridge.Published {
	status := obj.Status
	if status.Artifact == nil || status.Record == nil {
		return nil
	}
	digest, err := reference.ParseDigest(status.Record.Digest)
	if err != nil {
		return nil
	}
	return &bridge.Published{
		Repository: status.Record.Image,
		Digest:     digest,
		Content:    status.ObservedContent,
		Artifact:   *status.Artifact,
		Format:     status.Format,
		VerifiedBy: latestPublication(obj).VerifiedBy,
	}
}
