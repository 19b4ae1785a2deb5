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

package git

import (
	"os"
	"path/filepath"
	"testing"

	. "github.com/onsi/gomega"
)

// TestARepositoryOfAStrangerIsNotRead has the repository above a folder belong to
// others, as one in /tmp may.
func TestARepositoryOfAStrangerIsNotRead(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can give a file to somebody else")
	}
	const stranger, other = 12345, 12346
	for name, c := range map[string]struct {
		repository, folder int
		isRead             bool
	}{
		"a stranger":              {stranger, 0, false},
		"one of two strangers":    {stranger, other, false},
		"the owner of the folder": {stranger, stranger, true},
		"who runs the command":    {0, stranger, true},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			dir := repository(t)
			folder := filepath.Join(dir, "sub")
			g.Expect(os.Lchown(filepath.Join(dir, ".git"), c.repository, -1)).To(Succeed())
			g.Expect(os.Lchown(folder, c.folder, -1)).To(Succeed())
			r, err := Find(folder)
			if !c.isRead {
				g.Expect(err).To(MatchError(ContainSubstring("belongs to user 12345")))
				return
			}
			g.Expect(err).NotTo(HaveOccurred())
			r.Close()
		})
	}
}
