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

package format

import (
	"context"
	"errors"
	"fmt"
	"os"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/image-source/image-source-controller/api/v1alpha1"
	"github.com/image-source/image-source-controller/pkg/fault"
)

func invalid(format string, args ...any) error {
	return fault.Stallf(v1alpha1.ReasonInvalidArtifact, format, args...)
}

func unsupported(format string, args ...any) error {
	return fault.Stallf(v1alpha1.ReasonUnsupportedMediaType, format, args...)
}

func invalidSpec(format string, args ...any) error {
	return fault.Stallf(v1alpha1.ReasonInvalidSpec, format, args...)
}

// tooLarge is the error of a limit that nobody sets.
func tooLarge(format string, args ...any) error {
	return fault.Stallf(v1alpha1.ReasonLimitExceeded, format, args...)
}

// exceeded is the error of a limit that a flag sets.
func exceeded(flag, format string, args ...any) error {
	return tooLarge("%s; the platform sets the limit with %s", fmt.Sprintf(format, args...), flag)
}

// disk is the error of a local file that could not be read or written.
func disk(doing string, err error) error {
	return fault.Retryf(v1alpha1.ReasonStorageOperationFailed, "failed to %s: %w", doing, pathless(err))
}

// errChanged is the error of a file that has another size than it had.
var errChanged = errors.New("it changes while it is read")

// reading names the file that cannot be read.
func reading(name string, err error) error {
	if settled(err) {
		return err
	}
	return disk("read "+fault.Quote(name), err)
}

// pathless drops the name of the local file, which helps nobody who reads a
// condition.
func pathless(err error) error {
	if path, ok := errors.AsType[*os.PathError](err); ok {
		return path.Err
	}
	return err
}

// inLayer says in which layer of several an error is.
func inLayer(number int, layers []v1.Descriptor, err error) error {
	if err == nil || len(layers) == 1 {
		return err
	}
	return fmt.Errorf("layer %d of %d: %w", number+1, len(layers), err)
}

// settled reports whether err already says what it means: it carries a reason,
// or it is the end of the attempt's time.
func settled(err error) bool {
	var f *fault.Error
	return errors.As(err, &f) || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)
}
