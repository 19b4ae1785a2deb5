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

package store_test

import (
	"context"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	. "github.com/onsi/gomega"
	"golang.org/x/sync/errgroup"

	"github.com/image-source/image-source-controller/pkg/store"
)

// overwrite changes a file in place, as a bad disk or a careless person does.
func overwrite(t testing.TB, path, content string) {
	t.Helper()
	NewWithT(t).Expect(os.WriteFile(path, []byte(content), 0o600)).To(Succeed())
}

func TestHandlerServesNoDamagedBytes(t *testing.T) {
	for name, tc := range map[string]struct {
		// served tells whether the file was served before it was harmed.
		served, restarted bool
	}{
		"that were altered while no process ran":    {restarted: true},
		"that were altered before they were served": {},
		"that were altered after they were served":  {served: true},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			root := t.TempDir()
			s := open(t, options(root))
			stored := put(t, s, app, "v1")
			shared := put(t, s, store.Key{Namespace: "other", Name: "app"}, "v1")
			if tc.served {
				expectFetch(t, s, stored)
			}
			if tc.restarted {
				s = reopen(t, s, options(root))
			}
			overwrite(t, filepath.Join(root, stored.Path), "vX")

			response, body := exchange(t, serve(t, s, store.HandlerOptions{}), "GET", "/"+stored.Path)
			g.Expect(response.StatusCode).To(Equal(http.StatusNotFound), body)
			g.Expect(files(t, root)).To(BeEmpty(), "the bytes are %s's too", shared.Path)

			again := serve(t, s, store.HandlerOptions{Missing: func(context.Context, store.Key, string) error {
				put(t, s, app, "v1")
				return nil
			}})
			_, body = exchange(t, again, "GET", "/"+stored.Path)
			g.Expect(body).To(Equal("v1"))
		})
	}
}

func TestHandlerServesGoodBytesOfAnEarlierProcess(t *testing.T) {
	g := NewWithT(t)
	root := t.TempDir()
	content := strings.Repeat("content ", 1<<20)
	s := open(t, options(root))
	stored := put(t, s, app, content)
	s = reopen(t, s, options(root))
	address := serve(t, s, store.HandlerOptions{})
	var group errgroup.Group
	for range 20 {
		group.Go(func() error {
			if response, body := exchange(t, address, "GET", "/"+stored.Path); response.StatusCode != http.StatusOK || body != content {
				return fmt.Errorf("code %d, %d bytes", response.StatusCode, len(body))
			}
			return nil
		})
	}
	g.Expect(group.Wait()).To(Succeed())
}

func TestHasTellsWhetherGoodBytesAreHere(t *testing.T) {
	t.Parallel()
	g := NewWithT(t)
	root := t.TempDir()
	s := open(t, options(root))
	stored := put(t, s, app, "v1")
	g.Expect(s.Has(t.Context(), app, stored.SHA256)).To(BeTrue())
	g.Expect(s.Has(t.Context(), app, digestOf("v2"))).To(BeFalse())
	g.Expect(os.WriteFile(filepath.Join(root, stored.Path), []byte("v2"), 0o600)).To(Succeed())
	g.Expect(s.Has(t.Context(), app, stored.SHA256)).To(BeFalse(), "they are damaged")
	_, err := s.Has(t.Context(), app, "../../../etc/passwd")
	g.Expect(err).To(HaveOccurred())
}

// A restored backup may have lost the hard links: what is found of one file of a
// content must not be taken for what is true of another.
func TestHandlerTellsCopiesOfOneContentApart(t *testing.T) {
	g := NewWithT(t)
	root := t.TempDir()
	content := strings.Repeat("content ", 1<<22) // takes a while to read
	s := open(t, options(root))
	good := put(t, s, app, content)
	copied := put(t, s, store.Key{Namespace: "other", Name: "app"}, content)
	s = reopen(t, s, options(root))
	g.Expect(os.Remove(filepath.Join(root, copied.Path))).To(Succeed())
	overwrite(t, filepath.Join(root, copied.Path), strings.ToUpper(content))
	address := serve(t, s, store.HandlerOptions{})
	var group errgroup.Group
	for range 4 {
		for path, want := range map[string]int{good.Path: http.StatusOK, copied.Path: http.StatusNotFound} {
			group.Go(func() error {
				if response, body := exchange(t, address, "GET", "/"+path); response.StatusCode != want || want == http.StatusOK && body != content {
					return fmt.Errorf("code %d for %s, %d bytes", response.StatusCode, path, len(body))
				}
				return nil
			})
		}
	}
	g.Expect(group.Wait()).To(Succeed())
	g.Expect(published(t, root)).To(ConsistOf(strings.TrimPrefix(good.Path, "externalartifact/")))
}

// A disk that fails for a moment must not take what nobody else may have.
func TestAFileThatCannotBeReadIsKeptUntilItIsReplaced(t *testing.T) {
	other := store.Key{Namespace: "other", Name: "app"}
	unread := func(t *testing.T) (*WithT, *store.Store, string, store.Stored) {
		t.Helper()
		g, root := NewWithT(t), t.TempDir()
		s := open(t, options(root))
		stored := put(t, s, app, "v1")
		put(t, s, other, "v1")
		expectFetch(t, s, stored)
		before := files(t, root)
		g.Expect(store.ExamineUnread(t.Context(), s, stored.Path, stored.SHA256)).To(MatchError(fs.ErrNotExist))
		g.Expect(files(t, root)).To(Equal(before))
		_, ok, err := s.Check(t.Context(), app, recorded(stored))
		g.Expect(err).NotTo(HaveOccurred())
		g.Expect(ok).To(BeFalse(), "it is made again, if it can be")
		_, ok, err = s.Link(t.Context(), store.Key{Namespace: "third", Name: "app"}, stored.SHA256)
		g.Expect(err).NotTo(HaveOccurred())
		g.Expect(ok).To(BeFalse(), "nobody else gets it")
		return g, s, root, stored
	}

	t.Run("the disk recovers", func(t *testing.T) {
		g, s, _, stored := unread(t)
		expectFetch(t, s, stored)
		_, ok, err := s.Check(t.Context(), app, recorded(stored))
		g.Expect(err).NotTo(HaveOccurred())
		g.Expect(ok).To(BeTrue())
	})

	t.Run("somebody has the bytes", func(t *testing.T) {
		g, s, root, stored := unread(t)
		bad, err := os.Stat(filepath.Join(root, stored.Path))
		g.Expect(err).NotTo(HaveOccurred())
		for _, key := range []store.Key{app, other} {
			again := put(t, s, key, "v1")
			now, err := os.Stat(filepath.Join(root, again.Path))
			g.Expect(err).NotTo(HaveOccurred())
			g.Expect(os.SameFile(now, bad)).To(BeFalse(), "it is another file")
			_, ok, err := s.Check(t.Context(), key, recorded(again))
			g.Expect(err).NotTo(HaveOccurred())
			g.Expect(ok).To(BeTrue())
			expectFetch(t, s, again)
		}
	})
}
