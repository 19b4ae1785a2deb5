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
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	fluxtar "github.com/fluxcd/pkg/tar"
)

// validation checks what was packed, not the folder that it was packed of: a
// file that is left out is missing in the cluster too.
type validation struct {
	*app

	// shown is the folder as the person named it.
	shown string
	// remoteBases lets kustomize fetch over the network.
	remoteBases bool
	// strict refuses a check that the kernel does not confine, and a kustomization that it cannot build.
	strict bool
}

// maxUnbuilt is how many kustomizations are named that are not built.
const maxUnbuilt = 10

// validate unpacks an archive as kustomize-controller does and has it checked.
func (v *validation) validate(ctx context.Context, archive string) error {
	folder, err := os.MkdirTemp("", programName+"-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(folder)
	if err := unpack(ctx, archive, folder); err != nil {
		return cmp.Or(ctx.Err(), err)
	}
	at, unconfined, unbuilt := ".", "", 0
	err = v.check(ctx, v.streams, checkJob{folder: folder, remoteBases: v.remoteBases, strict: v.strict}, func(m message) {
		switch {
		case m.Unconfined != "":
			unconfined = "the kernel does not confine the process that checks the packed files: " + m.Unconfined
		case m.At != "":
			at = m.At
		case m.Unbuilt != nil:
			if unbuilt++; unbuilt <= maxUnbuilt {
				v.warnf("%s is not built, because it needs %s from the network; --remote-bases allows that, for a folder that you trust in full",
					v.show(m.Unbuilt.File), m.Unbuilt.Words)
			}
		}
	})
	if more := unbuilt - maxUnbuilt; more > 0 {
		v.warnf("%d more kustomizations are not built", more)
	}
	switch {
	case unconfined == "":
	case v.strict:
		return errors.New(unconfined + "; run it where the kernel does, or leave --strict out for a folder that you trust")
	default:
		v.warnf("%s; check the folder of a stranger on another machine", unconfined)
	}
	found, isFinding := errors.AsType[*finding](err)
	switch {
	case err == nil && v.strict && unbuilt > 0:
		return fmt.Errorf("%s: %s not built for want of the network, and not checked; leave --strict out, or give --remote-bases for a folder that you trust in full",
			v.shown, counted(unbuilt, "kustomization"))
	case err == nil:
		return nil
	case isFinding:
		return v.explain(found)
	case ctx.Err() != nil:
		return fmt.Errorf("%s: kustomize did not finish: %w", v.show(at), ctx.Err())
	default:
		return fmt.Errorf("%s: it cannot be checked: %w; --no-validate pushes without a check", v.show(at), err)
	}
}

func unpack(ctx context.Context, archive, folder string) error {
	file, err := os.Open(archive) //nolint:gosec // a file in a folder of our own
	if err != nil {
		return err
	}
	defer file.Close()
	return fluxtar.Untar(&untilDone{ctx, file}, folder, fluxtar.WithMaxUntarSize(fluxtar.UnlimitedUntarSize), fluxtar.WithSkipSymlinks())
}

func (v *validation) show(name string) string {
	return filepath.Join(v.shown, filepath.FromSlash(name))
}

// explain adds to a finding what only the folder that was packed can tell.
func (v *validation) explain(found *finding) error {
	place, words := v.show(found.File), found.Words
	if found.Line > 0 {
		place = fmt.Sprintf("%s:%d", place, found.Line)
	}
	if found.Missing != "" {
		words += " " + v.whyMissing(found.Missing)
	}
	return fmt.Errorf("%s: %s", place, words)
}

// whyMissing says why a file or folder that a kustomization names is not in what
// was packed: kustomize's words for that are about folders of its own.
func (v *validation) whyMissing(name string) string {
	if !filepath.IsLocal(filepath.FromSlash(name)) {
		return "is outside of the folder that is pushed, where nobody who deploys it can read it"
	}
	// The author of the folder has no part in what git keeps there on this machine.
	if slices.ContainsFunc(strings.Split(canonicalPath(name), "/"), isGit) {
		return "is not there"
	}
	// A link in the folder must not let its author learn of other files of this machine.
	root, err := os.OpenRoot(v.shown)
	if err != nil {
		return "is not there"
	}
	defer root.Close()
	switch info, err := root.Lstat(filepath.FromSlash(name)); {
	case err != nil:
		return "is not there"
	case info.IsDir():
		return "has no file that is pushed: what .sourceignore or Flux's defaults match, and symbolic links, are left out"
	default:
		return "is not pushed: what .sourceignore or Flux's defaults match, and symbolic links, are left out"
	}
}
