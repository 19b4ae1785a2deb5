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

package serve

import (
	"context"

	ctrl "sigs.k8s.io/controller-runtime"

	"github.com/image-source/image-source-controller/pkg/store"
)

// Scrubber reads the stored files in the background, see store.Store.Scrub. It runs on
// every replica.
type Scrubber struct {
	// Store to read.
	Store *store.Store
	// Lost is told of each key that had a bad file.
	Lost func(ctx context.Context, key store.Key, sha256 string)
}

// NeedLeaderElection is false: every replica stores.
func (*Scrubber) NeedLeaderElection() bool { return false }

// Start reads until ctx ends.
func (s *Scrubber) Start(ctx context.Context) error {
	s.Store.Scrub(ctx, store.ScrubOptions{Lost: s.Lost, Failed: func(err error) {
		ctrl.LoggerFrom(ctx).Error(err, "not all stored files were read")
	}})
	return nil
}
