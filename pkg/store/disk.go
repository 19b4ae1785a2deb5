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

package store

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"syscall"

	"github.com/image-source/image-source-controller/api/v1alpha1"
	"github.com/image-source/image-source-controller/pkg/fault"
)

// diskFault turns an error of the file system into a retry whose words name the
// storage path by its flag and say what helps. A cancelled context is no
// fault of the disk, and what is a fault already stays as it is.
func diskFault(doing string, err error) error {
	var known *fault.Error
	if err == nil || errors.As(err, &known) || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return fault.Retryf(v1alpha1.ReasonStorageOperationFailed, "%s: %w; %s", doing, err, remedy(err))
}

// ScratchFault is the error of who works in a scratch folder and finds the disk
// at fault: a retry that says what helps. It does not name the folder, which is
// another one at each attempt: a message that always changes would be written,
// and noticed, at each attempt too.
func ScratchFault(doing string, err error) error {
	return diskFault(doing, pathless(err))
}

// pathless drops the names of files from an error of the file system.
func pathless(err error) error {
	if path, ok := errors.AsType[*fs.PathError](err); ok {
		return path.Err
	}
	if link, ok := errors.AsType[*os.LinkError](err); ok {
		return link.Err
	}
	return err
}

func isFull(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}

func remedy(err error) string {
	switch {
	case errors.Is(err, ErrInUse):
		return "give each replica a --storage-path of its own; a volume that allows one writer takes one replica and the strategy Recreate"
	case isFull(err):
		return "the volume of --storage-path has no space or inodes left: enlarge it, or keep less with --artifact-retention-ttl and --artifact-retention-records"
	case errors.Is(err, syscall.EROFS):
		return "the volume of --storage-path is read-only: mount it writable"
	case errors.Is(err, syscall.EIO):
		return "the disk of --storage-path reports an input/output error: check the node's disk and its logs"
	case errors.Is(err, fs.ErrPermission):
		return "the controller's user may not do this in --storage-path: set the pod's fsGroup, or the owner of the folder"
	case errors.Is(err, syscall.EMFILE), errors.Is(err, syscall.ENFILE):
		return "too many files are open: raise the limit of open files"
	case errors.Is(err, syscall.EFBIG):
		return "the file is larger than the file system of --storage-path or the process limit allows"
	case errors.Is(err, syscall.EMLINK):
		return "the file system of --storage-path allows no more hard links to one file: use one that does"
	case errors.Is(err, errors.ErrUnsupported), errors.Is(err, syscall.EXDEV):
		return "--storage-path must be one file system that has hard links"
	case errors.Is(err, fs.ErrNotExist):
		return "--storage-path must be an existing folder that nothing else removes files from: create it or mount a volume there"
	case errors.Is(err, syscall.ENOTDIR), errors.Is(err, syscall.EISDIR), errors.Is(err, fs.ErrExist):
		return "something else has written below --storage-path: give the controller a folder of its own"
	default:
		return "check the volume of --storage-path"
	}
}
