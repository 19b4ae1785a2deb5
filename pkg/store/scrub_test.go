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
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	. "github.com/onsi/gomega"

	"github.com/image-source/image-source-controller/pkg/store"
)

// scrub has a store read all its files once, and returns the keys that lost theirs.
func scrub(t testing.TB, s *store.Store) []store.Key {
	t.Helper()
	keys, failed := store.ScrubOnce(t.Context(), s, nil)
	NewWithT(t).Expect(failed).NotTo(HaveOccurred())
	return keys
}

// rot changes a file as a bad disk does: neither size nor time tells.
func rot(t testing.TB, path string) {
	t.Helper()
	g := NewWithT(t)
	before := stat(t, path)
	content := []byte(read(t, path))
	content[len(content)/2] ^= 1
	overwrite(t, path, string(content))
	g.Expect(os.Chtimes(path, before.ModTime(), before.ModTime())).To(Succeed())
	now := stat(t, path)
	g.Expect(now.Size()).To(Equal(before.Size()))
	g.Expect(now.ModTime()).To(Equal(before.ModTime()))
}

// scrubbing scrubs until the test ends.
func scrubbing(t *testing.T, s *store.Store, o store.ScrubOptions) (lost chan store.Key) {
	t.Helper()
	lost = make(chan store.Key, 10)
	o.Lost = func(_ context.Context, key store.Key, _ string) { lost <- key }
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		s.Scrub(ctx, o)
	}()
	t.Cleanup(func() { cancel(); <-ended })
	return lost
}

const inTime = 30 * time.Second

func TestScrubFindsDamageThatLeavesNoTrace(t *testing.T) {
	for name, restarted := range map[string]bool{"in the process that stored it": false, "of an earlier process": true} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			root := t.TempDir()
			s := open(t, options(root))
			stored, beside := put(t, s, app, "version 1"), put(t, s, store.Key{Namespace: "apps", Name: "beside"}, "version 2")
			expectFetch(t, s, stored)
			rot(t, filepath.Join(root, stored.Path))
			if restarted {
				s = reopen(t, s, options(root))
			}

			lost := scrubbing(t, s, store.ScrubOptions{})

			g.Eventually(lost, inTime).Should(Receive(Equal(app)))
			_, ok, err := s.Check(t.Context(), app, recorded(stored))
			g.Expect(err).NotTo(HaveOccurred())
			g.Expect(ok).To(BeFalse())
			response, _ := exchange(t, serve(t, s, store.HandlerOptions{}), "GET", "/"+stored.Path)
			g.Expect(response.StatusCode).To(Equal(http.StatusNotFound))
			expectFetch(t, s, beside)

			expectFetch(t, s, put(t, s, app, "version 1"))
			_, ok, err = s.Check(t.Context(), app, recorded(stored))
			g.Expect(err).NotTo(HaveOccurred())
			g.Expect(ok).To(BeTrue())
			g.Expect(lost).NotTo(Receive())
		})
	}
}

func TestScrubComesAgain(t *testing.T) {
	g := NewWithT(t)
	root := t.TempDir()
	s := open(t, options(root))
	rounds := make(chan struct{}, 1000)
	lost := scrubbing(t, s, store.ScrubOptions{Every: 10 * time.Millisecond, Limiter: limiter(func(context.Context, int) error {
		select {
		case rounds <- struct{}{}:
		default:
		}
		return nil
	})})
	stored := put(t, s, app, "version 1")
	g.Eventually(rounds, inTime).Should(Receive(), "it was read once")
	aside := filepath.Join(t.TempDir(), "aside") // a round may read while a file is changed in place
	overwrite(t, aside, "version X")
	g.Expect(os.Rename(aside, filepath.Join(root, stored.Path))).To(Succeed())
	g.Eventually(lost, inTime).Should(Receive(Equal(app)))
}

func TestScrubNextReadsBetweenTwoRounds(t *testing.T) {
	g := NewWithT(t)
	root := t.TempDir()
	s := open(t, options(root))
	stored := put(t, s, app, "version 1")
	read := make(chan int, 10)
	lost := scrubbing(t, s, store.ScrubOptions{Limiter: limiter(func(_ context.Context, n int) error {
		read <- n
		return nil
	})})
	g.Eventually(read, inTime).Should(Receive(Equal(len("version 1"))), "the round at the start, which is over soon")
	rot(t, filepath.Join(root, stored.Path))
	other := recorded(stored)
	other.Path = "../../etc/passwd"
	s.ScrubNext(app, other)
	s.ScrubNext(app, recorded(stored))
	g.Eventually(lost, inTime).Should(Receive(Equal(app)))
	g.Expect(read).To(Receive(Equal(len("version 1"))), "from the same budget")
	g.Expect(read).NotTo(Receive())
}

// limiter is a store.Limiter.
type limiter func(ctx context.Context, n int) error

func (l limiter) WaitN(ctx context.Context, n int) error { return l(ctx, n) }

func TestScrubReadsNoMoreThanTheLimiterAllows(t *testing.T) {
	g := NewWithT(t)
	root := t.TempDir()
	s := open(t, options(root))
	content := strings.Repeat("content ", 1<<17) // 1 MiB
	stored := put(t, s, app, content)
	put(t, s, store.Key{Namespace: "other", Name: "app"}, content) // is the same file
	rot(t, filepath.Join(root, stored.Path))
	const allowed = 256 << 10
	granted, held, done := 0, make(chan int), make(chan struct{})
	var lost []store.Key
	var failed error
	go func() {
		defer close(done)
		lost, failed = store.ScrubOnce(t.Context(), s, limiter(func(_ context.Context, n int) error {
			if granted += n; granted >= allowed {
				held <- granted
			}
			return nil
		}))
	}()

	reached := 0
	for reached < len(content) {
		g.Expect(done).NotTo(BeClosed(), "nothing is judged before it was read to its end")
		before := max(reached, allowed)
		g.Eventually(held, inTime).Should(Receive(&reached))
		g.Expect(reached).To(BeNumerically("<=", before+64<<10), "it waits with one buffer in hand")
	}
	g.Eventually(done, inTime).Should(BeClosed())
	g.Expect(failed).NotTo(HaveOccurred())
	g.Expect(granted).To(Equal(len(content)), "each file is read once, whatever number of names it has")
	g.Expect(lost).To(ConsistOf(app, store.Key{Namespace: "other", Name: "app"}))
}

func TestAFileThatChangesWhileItIsScrubbedIsNoError(t *testing.T) {
	content := strings.Repeat("content ", 1<<15)
	for name, tc := range map[string]struct {
		damaged bool
		change  func(t *testing.T, s *store.Store, file string)
		ok      bool
	}{
		"a good one is removed": {false, func(t *testing.T, s *store.Store, _ string) {
			t.Helper()
			NewWithT(t).Expect(s.Remove(t.Context(), app)).To(Succeed())
		}, false},
		"a good one is replaced": {false, func(t *testing.T, s *store.Store, file string) {
			t.Helper()
			NewWithT(t).Expect(os.Remove(file)).To(Succeed())
			put(t, s, app, content)
		}, true},
		"a damaged one is removed": {true, func(t *testing.T, s *store.Store, _ string) {
			t.Helper()
			NewWithT(t).Expect(s.Remove(t.Context(), app)).To(Succeed())
		}, false},
		"a damaged one is replaced": {true, func(t *testing.T, s *store.Store, _ string) {
			t.Helper()
			NewWithT(t).Expect(s.Remove(t.Context(), app)).To(Succeed())
			put(t, s, app, content)
		}, true},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			root := t.TempDir()
			s := open(t, options(root))
			stored := put(t, s, app, content)
			if tc.damaged {
				rot(t, filepath.Join(root, stored.Path))
			}
			beside := put(t, s, store.Key{Namespace: "apps", Name: "beside"}, "rots as well")
			rot(t, filepath.Join(root, beside.Path))
			reading, goOn := make(chan struct{}), make(chan struct{})
			first := true
			hold := limiter(func(_ context.Context, n int) error {
				if first && n > len("rots as well") {
					first = false
					close(reading)
					<-goOn
				}
				return nil
			})
			var lost []store.Key
			var failed error
			done := make(chan struct{})
			go func() {
				defer close(done)
				lost, failed = store.ScrubOnce(t.Context(), s, hold)
			}()
			g.Eventually(reading, inTime).Should(BeClosed())
			tc.change(t, s, filepath.Join(root, stored.Path))
			close(goOn)

			g.Eventually(done, inTime).Should(BeClosed())
			g.Expect(failed).NotTo(HaveOccurred())
			g.Expect(lost).To(Equal([]store.Key{{Namespace: "apps", Name: "beside"}}), "the other key has another file, or none")
			_, ok, err := s.Check(t.Context(), app, recorded(stored))
			g.Expect(err).NotTo(HaveOccurred())
			g.Expect(ok).To(Equal(tc.ok))
			if tc.ok {
				expectFetch(t, s, stored)
			}
		})
	}
}

// A source whose reconciles are requested all the time must not keep the files of others
// from being read.
func TestRequestsDoNotKeepTheNextRoundFromBeginning(t *testing.T) {
	g := NewWithT(t)
	s := open(t, options(t.TempDir()))
	wanted := put(t, s, app, "wanted all the time")
	put(t, s, store.Key{Namespace: "apps", Name: "beside"}, "read in rounds")
	beside := make(chan struct{}, 100)
	scrubbing(t, s, store.ScrubOptions{Every: 10 * time.Millisecond, Limiter: limiter(func(ctx context.Context, n int) error {
		s.ScrubNext(app, recorded(wanted))
		if n == len("read in rounds") {
			select {
			case beside <- struct{}{}:
			default:
			}
		}
		return ctx.Err()
	})})
	for range 3 {
		g.Eventually(beside, 5*time.Second).Should(Receive())
	}
}
