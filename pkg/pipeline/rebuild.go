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

package pipeline

import (
	"context"

	"github.com/image-source/image-source-controller/pkg/bridge"
	"github.com/image-source/image-source-controller/pkg/trust"
)

// Rebuild verifies and builds an image, even if it is published or was refused. The
// reference determines the candidate of the request.
//
// Errors: those of bridge.Resolve, bridge.Verify and Bridge.Build.
func (p *Pipeline) Rebuild(ctx context.Context, r bridge.Request, image bridge.Reference, by trust.Verifier) (bridge.Outcome, error) {
	candidates, err := bridge.Resolve(ctx, r.Repository, image)
	if err != nil {
		return bridge.Outcome{}, err
	}
	r.Candidate = candidates[0]
	proof, err := bridge.Verify(ctx, r.Repository, r.Candidate, by)
	if err != nil {
		return bridge.Outcome{}, err
	}
	return p.Bridge.Build(ctx, r, proof)
}
