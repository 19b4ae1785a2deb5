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

	imagev1 "github.com/fluxcd/image-reflector-controller/api/v1"

	"github.com/image-source/image-source-controller/api/v1alpha1"
	"github.com/image-source/image-source-controller/pkg/fault"
	"github.com/image-source/image-source-controller/pkg/publication"
	"github.com/image-source/image-source-controller/pkg/reference"
)

// Recorded returns the image of the record, regardless of the spec and the policy. It uses
// the access to the image that these name now; if that image is on another registry, only
// the part of the access that the recorded registry may see. The object has a record.
//
// Errors: InvalidSpec (stall), DependencyNotReady (wait).
func (s Snapshot) Recorded() (Target, error) {
	obj, recipe := s.Object, s.Object.Status.Record
	t := Target{Tag: publication.Latest(obj).Tag, Access: accessOfSpec(obj)}
	named := ImageName(obj)
	if obj.Spec.ImagePolicyRef != nil {
		if s.Repository == nil {
			return t, waitFor("the ImageRepository that opened %s does not exist", recipe.Image)
		}
		if key := keyOf(s.Repository); key.Namespace == obj.Namespace || opens(s.Repository, recipe) {
			t.Access, named = accessOf(s.Repository), s.Repository.Spec.Image
		} else {
			t.Note = fmt.Sprintf("ImageRepository %s of another namespace names another image, and its access is used for no other", key)
			named = recipe.Image
		}
	}
	if !sameRegistry(recipe.Image, named) {
		t.Access = t.Access.Elsewhere()
		t.Note = "the image is on another registry than the image named now: only logins for that registry are used"
	}
	err := t.Access.Check()
	if err != nil {
		return t, err
	}
	if t.Repository, err = parseRepository(recipe.Image, t.Access.Insecure); err != nil {
		return t, fault.Stallf(v1alpha1.ReasonInvalidSpec, "the record names the image %s, which is not the name of a repository: %w; publish another image", fault.Quote(recipe.Image), err)
	}
	if t.Digest, err = reference.ParseDigest(recipe.Digest); err != nil {
		return t, fault.Stallf(v1alpha1.ReasonInvalidSpec, "the record names the digest %s: %w; publish another image", fault.Quote(recipe.Digest), err)
	}
	return t, nil
}

// opens reports whether an ImageRepository of another namespace lends its access to the
// recorded image: the access fetched it, or the image is the one that the ImageRepository
// names. Its logins may open more images than this one.
func opens(repository *imagev1.ImageRepository, recipe *v1alpha1.Recipe) bool {
	if recipe.ImageRepository == keyOf(repository).String() {
		return true
	}
	named, err := parseRepository(repository.Spec.Image, repository.Spec.Insecure)
	return err == nil && isNameOf(recipe.Image, named)
}

// sameRegistry reports whether two images are on one registry.
func sameRegistry(one, other string) bool {
	a, errA := parseRepository(one, false)
	b, errB := parseRepository(other, false)
	return errA == nil && errB == nil && a.RegistryStr() == b.RegistryStr()
}
