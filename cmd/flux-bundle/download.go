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

package main

import (
	"context"
	"io"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/image-source/image-source-controller/pkg/registry"
)

// minShownBytes is the size from which a download is shown: what is smaller is
// there before anybody could read of it.
const minShownBytes = 1 << 20

// watchedRepository is a repository of which a person sees how far downloads
// are.
type watchedRepository struct {
	*registry.Repository
	app *app
}

// Pull is that of the repository.
func (r watchedRepository) Pull(ctx context.Context, desc v1.Descriptor, to io.Writer) (err error) {
	if desc.Size < minShownBytes {
		return r.Repository.Pull(ctx, desc, to)
	}
	shown := &progress{app: r.app, transfer: downwards, what: layerText(desc.Digest), repository: r.Name(), size: desc.Size}
	defer func() { shown.end(err) }()
	return r.Repository.Pull(ctx, desc, io.MultiWriter(to, shown.start()))
}
