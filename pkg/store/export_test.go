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
	"os"
	"path/filepath"
)

// ScrubOnce has a store read all its files once.
func ScrubOnce(ctx context.Context, s *Store, pace Limiter) (lost []Key, failed error) {
	s.scrubAll(ctx, ScrubOptions{
		Limiter: pace,
		Lost:    func(_ context.Context, key Key, _ string) { lost = append(lost, key) },
		Failed:  func(err error) { failed = err },
	})
	return lost, failed
}

// ExamineUnread has the file at a path read by a store while that is not possible:
// through a descriptor that is open for writing alone.
func ExamineUnread(ctx context.Context, s *Store, path, sha256 string) error {
	f, err := os.OpenFile(filepath.Join(s.root, path), os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = s.readToEnd(ctx, f, sha256, nil)
	return err
}
