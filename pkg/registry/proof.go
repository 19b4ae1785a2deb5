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

package registry

import (
	"context"
	"errors"
	"net/http"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/image-source/image-source-controller/api/v1alpha1"
	"github.com/image-source/image-source-controller/pkg/fault"
)

// HasBlob returns nil if the registry shows this access the blob: its own
// credentials got 200 for it, now or not longer than Options.ProofAge ago. Any
// refusal ends what was proven.
func (r *Repository) HasBlob(ctx context.Context, digest v1.Hash) error {
	if err := checkDigest(digest); err != nil {
		return err
	}
	key := digestKey{access: r.access, digest: digest}
	known := func() (struct{}, bool) { return struct{}{}, r.proven(key) }
	_, err := r.client.proving.doUnless(ctx, known, key,
		func(ctx context.Context) (struct{}, error) { return struct{}{}, r.seek(ctx, key) })
	return r.failure("look for "+digest.String()+" in "+r.name, err)
}

func (r *Repository) proven(key digestKey) bool {
	at, ok := r.client.proofs.get(key)
	return ok && r.client.options.Clock().Sub(at) < r.client.options.ProofAge
}

func (r *Repository) prove(key digestKey) {
	r.client.proofs.put(key, r.client.options.Clock())
}

// seek asks for the header of a blob: by HEAD, and by GET, whose body is not
// read, where HEAD is not supported or storage behind the registry refuses it,
// as it does when the redirect that it was sent is signed for GET.
func (r *Repository) seek(ctx context.Context, key digestKey) error {
	a := ask{method: http.MethodHead, kind: "blobs", ref: key.digest.String()}
	answer, err := r.send(ctx, a)
	var failed *answerError
	if unanswered(err) || (errors.As(err, &failed) && failed.host != r.access.host) {
		a.method = http.MethodGet
		answer, err = r.send(ctx, a)
	}
	if err != nil {
		return err
	}
	_ = answer.Body.Close() // only the header matters
	if claim, err := v1.NewHash(answer.Header.Get(digestHeader)); err == nil && claim != key.digest {
		return fault.Retryf(v1alpha1.ReasonInvalidArtifact,
			"cannot look for %s in %s: the answer is about %s", key.digest, r.name, claim)
	}
	r.prove(key)
	return nil
}
