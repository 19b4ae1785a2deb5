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
	"fmt"
	"io/fs"
	"os"
	"syscall"
	"testing"

	. "github.com/onsi/gomega"

	"github.com/image-source/image-source-controller/api/v1alpha1"
	"github.com/image-source/image-source-controller/pkg/fault"
)

func TestRemedy(t *testing.T) {
	for words, cause := range map[string]error{
		"no space or inodes left":     syscall.ENOSPC,
		"no space or inodes":          syscall.EDQUOT,
		"mount it writable":           syscall.EROFS,
		"check the node's disk":       syscall.EIO,
		"fsGroup":                     syscall.EACCES,
		"owner of the folder":         syscall.EPERM,
		"limit of open files":         syscall.EMFILE,
		"too many files":              syscall.ENFILE,
		"larger than the file system": syscall.EFBIG,
		"no more hard links":          syscall.EMLINK,
		"has hard links":              syscall.EOPNOTSUPP,
		"one file system":             syscall.EXDEV,
		"existing folder":             syscall.ENOENT,
		"a folder of its own":         syscall.ENOTDIR,
		"check the volume":            syscall.ENXIO,
	} {
		t.Run(cause.Error()+" is a retry that says "+words, func(t *testing.T) {
			g := NewWithT(t)
			err := diskFault("store a file", &fs.PathError{Op: "openat", Path: "blobs/x", Err: cause})
			f := fault.Of(err, "")
			g.Expect(f.Reason).To(Equal(v1alpha1.ReasonStorageOperationFailed))
			g.Expect(f.Class).To(Equal(fault.Retry))
			g.Expect(err).To(MatchError(cause))
			g.Expect(err).To(MatchError(And(HavePrefix("store a file: "), ContainSubstring(words))))
		})
	}

	for name, err := range map[string]error{
		"the end of the caller is no fault of the disk": context.Canceled,
		"a deadline is no fault of the disk":            fmt.Errorf("hash: %w", context.DeadlineExceeded),
		"what is classified stays what it is":           fault.Stallf(v1alpha1.ReasonInvalidArtifact, "no"),
	} {
		t.Run(name, func(t *testing.T) {
			NewWithT(t).Expect(diskFault("store a file", err)).To(BeIdenticalTo(err))
		})
	}
	NewWithT(t).Expect(diskFault("store a file", nil)).To(Succeed())
}

// TestScratchFault holds what Put says of what happens to it in a scratch
// folder, whose name is another one at each attempt.
func TestScratchFault(t *testing.T) {
	const scratch = "tmp/ABCDEFGHIJKLMNOPQRSTUVWXYZ/out.tar.gz"
	for name, c := range map[string]struct {
		cause error
		words string
	}{
		"a full volume":                  {&fs.PathError{Op: "chtimes", Path: scratch, Err: syscall.ENOSPC}, "no space or inodes left"},
		"a quota that is used up":        {&os.LinkError{Op: "rename", Old: scratch, New: "blobs/x", Err: syscall.EDQUOT}, "no space or inodes left"},
		"a read-only volume":             {&os.LinkError{Op: "rename", Old: scratch, New: "blobs/x", Err: syscall.EROFS}, "mount it writable"},
		"a folder of somebody else's":    {&fs.PathError{Op: "openat", Path: scratch, Err: syscall.EACCES}, "fsGroup"},
		"a file that something removed":  {&fs.PathError{Op: "lstat", Path: scratch, Err: syscall.ENOENT}, "nothing else removes files from"},
		"an error that is wrapped again": {fmt.Errorf("flush: %w", &fs.PathError{Op: "sync", Path: scratch, Err: syscall.EIO}), "check the node's disk"},
	} {
		t.Run(name+" is a retry that names no scratch folder", func(t *testing.T) {
			g := NewWithT(t)
			err := ScratchFault("store the file of apps/app", c.cause)
			f := fault.Of(err, "")
			g.Expect(f.Reason).To(Equal(v1alpha1.ReasonStorageOperationFailed))
			g.Expect(f.Class).To(Equal(fault.Retry))
			var cause syscall.Errno
			g.Expect(errors.As(c.cause, &cause)).To(BeTrue())
			g.Expect(err).To(MatchError(cause))
			g.Expect(err).To(MatchError(And(HavePrefix("store the file of apps/app: "), ContainSubstring(c.words), Not(ContainSubstring("tmp/")))))
		})
	}
	for name, err := range map[string]error{
		"nothing":                           nil,
		"the end of the caller":             fmt.Errorf("hash: %w", context.Canceled),
		"a deadline":                        &fs.PathError{Op: "read", Path: scratch, Err: context.DeadlineExceeded},
		"a refusal of what is to be stored": fault.Stallf(v1alpha1.ReasonInvalidArtifact, "no"),
		"a registry that does not answer":   fmt.Errorf("pull: %w", fault.Retryf(v1alpha1.ReasonFetchFailed, "no answer")),
	} {
		t.Run(name+" is no fault of the disk", func(t *testing.T) {
			f := fault.Of(ScratchFault("store the file of apps/app", err), "unclassified")
			if err == nil {
				NewWithT(t).Expect(f).To(BeNil())
				return
			}
			NewWithT(t).Expect(f.Reason).NotTo(Equal(v1alpha1.ReasonStorageOperationFailed))
			NewWithT(t).Expect(f.Class).To(Equal(fault.Of(err, "").Class))
		})
	}
}
