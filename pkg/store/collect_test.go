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
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	. "github.com/onsi/gomega"

	"github.com/image-source/image-source-controller/pkg/store"
)

// live is the record of a key that names these files.
func live(key store.Key, named ...store.Stored) store.Record {
	record := store.Record{Key: key}
	for _, stored := range named {
		record.Paths = append(record.Paths, stored.Path)
	}
	return record
}

// fixture is a store in a time that does not pass by itself.
type fixture struct {
	testing.TB
	*WithT
	*clock
	root  string
	store *store.Store
}

func (f fixture) put(key store.Key, content string) store.Stored {
	f.Helper()
	return put(f.TB, f.store, key, content)
}

func (f fixture) collect(records ...store.Record) store.Collected {
	f.Helper()
	done, err := f.store.Collect(f.Context(), records)
	f.Expect(err).NotTo(HaveOccurred())
	return done
}

func TestCollect(t *testing.T) {
	for name, run := range map[string]func(f fixture){
		"keeps what a record names, however old": func(f fixture) {
			v1 := f.put(app, "v1")
			f.advance(1000 * time.Hour)
			f.Expect(f.collect(live(app, v1))).To(BeZero())
			f.Expect(read(f.TB, f.root, v1.Path)).To(Equal("v1"))
		},
		"keeps the retained history that a record names": func(f fixture) {
			var all []store.Stored
			for i := range 5 {
				all = append(all, f.put(app, fmt.Sprint(i)))
				f.advance(time.Hour)
			}
			f.Expect(f.collect(live(app, all...))).To(BeZero())
			f.Expect(published(f.TB, f.root)).To(HaveLen(5))
		},
		"removes superseded files after the TTL": func(f fixture) {
			f.put(app, "v1")
			v2 := f.put(app, "v2")
			f.advance(59 * time.Second)
			f.Expect(f.collect(live(app, v2))).To(BeZero())
			f.advance(2 * time.Second)
			f.Expect(f.collect(live(app, v2))).To(Equal(store.Collected{Files: 1, Bytes: 2}))
			f.Expect(files(f.TB, f.root)).To(ConsistOf(v2.Path, "blobs/"+v2.SHA256))
		},
		"keeps no more young files than the retention allows, the newest": func(f fixture) {
			var all []store.Stored
			for i := range 5 {
				all = append(all, f.put(app, fmt.Sprint(i)))
				f.advance(time.Second)
			}
			f.Expect(f.collect(live(app, all[4])).Files).To(Equal(3))
			f.Expect(filepath.Join(f.root, all[3].Path)).To(BeARegularFile())
			f.Expect(filepath.Join(f.root, all[4].Path)).To(BeARegularFile())
		},
		"keeps a named file that is older than the retained ones": func(f fixture) {
			var all []store.Stored
			for i := range 4 {
				all = append(all, f.put(app, fmt.Sprint(i)))
				f.advance(time.Second)
			}
			f.Expect(f.collect(live(app, all[0], all[3])).Files).To(Equal(2))
			f.Expect(filepath.Join(f.root, all[0].Path)).To(BeARegularFile())
			f.Expect(filepath.Join(f.root, all[3].Path)).To(BeARegularFile())
		},
		"keeps a file that is published and not recorded yet": func(f fixture) {
			v1 := f.put(app, "v1")
			f.advance(time.Hour)
			f.Expect(f.collect(live(app, v1))).To(BeZero())
			v2 := f.put(app, "v2")
			fresh := f.put(store.Key{Namespace: "new", Name: "app"}, "new")
			f.advance(2 * time.Minute) // beyond the TTL
			f.Expect(f.collect(live(app, v1))).To(BeZero())
			f.Expect(read(f.TB, f.root, v2.Path)).To(Equal("v2"))
			f.Expect(read(f.TB, f.root, fresh.Path)).To(Equal("new"))
		},
		"gives a file up whose record is never written": func(f fixture) {
			v1 := f.put(app, "v1")
			f.Expect(f.collect(live(app, v1))).To(BeZero())
			f.put(app, "v2")
			f.put(store.Key{Namespace: "new", Name: "app"}, "new")
			f.advance(6 * time.Minute)
			f.Expect(f.collect(live(app, v1)).Files).To(Equal(2))
			f.Expect(published(f.TB, f.root)).To(HaveLen(1))
		},
		"keeps a file that is published again": func(f fixture) {
			v1 := f.put(app, "v1")
			f.advance(time.Hour)
			v2 := f.put(app, "v2")
			f.collect(live(app, v1, v2))
			f.put(app, "v1") // a rollback, which is not recorded yet
			f.advance(2 * time.Minute)
			f.Expect(f.collect(live(app, v2))).To(BeZero())
			f.Expect(read(f.TB, f.root, v1.Path)).To(Equal("v1"))
		},
		"removes withdrawn files at once, and no others": func(f fixture) {
			v1 := f.put(app, "v1")
			other := f.put(store.Key{Namespace: "other", Name: "app"}, "v1")
			v2 := f.put(app, "v2")
			record := live(app, v2)
			record.Withdrawn = []string{"../../" + v1.SHA256, v1.SHA256, v2.SHA256}
			elsewhere := live(store.Key{Namespace: "other", Name: "app"}, other)
			f.Expect(f.collect(record, elsewhere)).To(Equal(store.Collected{Files: 1}))
			f.Expect(published(f.TB, f.root)).To(ConsistOf(base(v2), base(other)), "what is named stays")
		},
		"keeps a withdrawn file that is published again and not recorded yet": func(f fixture) {
			v1 := f.put(app, "v1")
			record := live(app, v1)
			f.collect(record)
			v2 := f.put(app, "v2")
			record.Withdrawn = []string{v2.SHA256}
			f.Expect(f.collect(record)).To(BeZero())
			f.Expect(read(f.TB, f.root, v2.Path)).To(Equal("v2"))
		},
		"removes all files of a key that is gone at once": func(f fixture) {
			v1, v2 := f.put(app, "v1"), f.put(app, "v2")
			f.Expect(f.collect(live(app, v1, v2))).To(BeZero())
			f.Expect(os.WriteFile(filepath.Join(f.root, filepath.Dir(v1.Path), "stranger"), nil, 0o600)).To(Succeed())
			f.Expect(f.collect()).To(Equal(store.Collected{Files: 2, Bytes: 4}))
			f.Expect(os.ReadDir(filepath.Join(f.root, "externalartifact"))).To(BeEmpty())
			f.Expect(files(f.TB, f.root)).To(BeEmpty())
		},
		"removes files of keys that an earlier process published": func(f fixture) {
			v1 := f.put(app, "v1")
			f.put(store.Key{Namespace: "gone", Name: "app"}, "gone")
			f.store = reopen(f.TB, f.store, options(f.root))
			f.Expect(f.collect(live(app, v1)).Files).To(Equal(1))
			f.Expect(published(f.TB, f.root)).To(ConsistOf("apps/app/" + v1.SHA256 + ".tar.gz"))
			f.Expect(filepath.Join(f.root, "externalartifact", "gone")).NotTo(BeADirectory())
		},
		"keeps content that another key still uses, and counts its bytes once": func(f fixture) {
			other := store.Key{Namespace: "other", Name: "app"}
			one, two := f.put(app, "shared"), f.put(other, "shared")
			f.Expect(f.collect(live(app, one), live(other, two))).To(BeZero())
			f.Expect(f.collect(live(other, two))).To(Equal(store.Collected{Files: 1}))
			f.Expect(read(f.TB, f.root, two.Path)).To(Equal("shared"))
			f.Expect(filepath.Join(f.root, "blobs", one.SHA256)).To(BeARegularFile())
			f.Expect(f.collect()).To(Equal(store.Collected{Files: 1, Bytes: 6}))
		},
		"removes content without a name": func(f fixture) {
			v1 := f.put(app, "v1")
			f.Expect(os.RemoveAll(filepath.Join(f.root, "externalartifact"))).To(Succeed())
			f.Expect(f.collect(live(app, v1))).To(Equal(store.Collected{Bytes: 2}))
			f.Expect(files(f.TB, f.root)).To(BeEmpty())
		},
		"frees the bytes of a file whose content was lost": func(f fixture) {
			f.collect(live(app, f.put(app, "v1")))
			f.Expect(os.RemoveAll(filepath.Join(f.root, "blobs"))).To(Succeed())
			f.Expect(f.collect()).To(Equal(store.Collected{Files: 1, Bytes: 2}))
		},
		"leaves alone what is none of ours": func(f fixture) {
			v1 := f.put(app, "v1")
			for _, stranger := range []string{"lost+found/x", "externalartifact/README", "externalartifact/Not-A-Namespace/x/y", "externalartifact/apps/app/x.lock"} {
				f.Expect(os.MkdirAll(filepath.Join(f.root, filepath.Dir(stranger)), 0o750)).To(Succeed())
				f.Expect(os.WriteFile(filepath.Join(f.root, stranger), nil, 0o600)).To(Succeed())
			}
			f.Expect(os.Symlink("/etc", filepath.Join(f.root, "externalartifact", "link"))).To(Succeed())
			before := files(f.TB, f.root)
			f.advance(time.Hour)
			f.Expect(f.collect(live(app, v1))).To(BeZero())
			f.Expect(files(f.TB, f.root)).To(Equal(before))
		},
		"has nothing to do in a storage that was lost": func(f fixture) {
			v1 := f.put(app, "v1")
			f.Expect(os.RemoveAll(filepath.Join(f.root, "externalartifact"))).To(Succeed())
			f.Expect(os.RemoveAll(filepath.Join(f.root, "blobs"))).To(Succeed())
			f.Expect(f.collect(live(app, v1))).To(BeZero())
		},
		"ignores paths of records that are no paths of ours": func(f fixture) {
			v1 := f.put(app, "v1")
			record := live(app, v1)
			record.Paths = append(record.Paths, "", "../../etc/passwd", "externalartifact/apps/app")
			f.Expect(f.collect(record)).To(BeZero())
		},
	} {
		t.Run(name, func(t *testing.T) {
			c := newClock()
			root := t.TempDir()
			o := options(root)
			o.Clock = c.time
			run(fixture{TB: t, WithT: NewWithT(t), clock: c, root: root, store: open(t, o)})
		})
	}

	t.Run("stops when the caller has gone", func(t *testing.T) {
		g := NewWithT(t)
		root := t.TempDir()
		s := open(t, options(root))
		put(t, s, app, "v1")
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		_, err := reopen(t, s, options(root)).Collect(ctx, nil)
		g.Expect(err).To(MatchError(context.Canceled))
		g.Expect(published(t, root)).To(HaveLen(1))
	})
}

func TestRemove(t *testing.T) {
	t.Run("removes all files of a key, recorded or not, and its folders", func(t *testing.T) {
		g := NewWithT(t)
		root := t.TempDir()
		s := open(t, options(root))
		put(t, s, app, "v1")
		put(t, s, app, "v2")
		neighbour := put(t, s, store.Key{Namespace: "apps", Name: "app.1"}, "neighbour")
		g.Expect(s.Remove(t.Context(), app)).To(Succeed())
		g.Expect(files(t, root)).To(ConsistOf(neighbour.Path, "blobs/"+neighbour.SHA256))
		g.Expect(filepath.Join(root, "externalartifact/apps/app")).NotTo(BeADirectory())
	})

	for name, key := range map[string]store.Key{
		"has nothing to do for a key without files": {Namespace: "none", Name: "none"},
		"touches nothing for a key that cannot be":  {Namespace: "..", Name: ".."},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			root := t.TempDir()
			s := open(t, options(root))
			put(t, s, app, "v1")
			g.Expect(s.Remove(t.Context(), key)).To(Succeed())
			g.Expect(files(t, root)).To(HaveLen(2))
		})
	}
}

// The harshest retention meets publications of few contents under few keys: a
// file that Put has returned must be there until a record has named it.
func TestCollectMeetsPut(t *testing.T) {
	g := NewWithT(t)
	root := t.TempDir()
	o := options(root)
	o.RetentionTTL, o.RetentionRecords = 0, 0
	s := open(t, o)

	var lost atomic.Int64
	var putters, collectors sync.WaitGroup
	done := make(chan struct{})
	for range 2 {
		collectors.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				_, err := s.Collect(t.Context(), nil)
				NewWithT(t).Expect(err).NotTo(HaveOccurred())
				NewWithT(t).Expect(s.Remove(t.Context(), store.Key{Namespace: "victim", Name: "app"})).To(Succeed())
			}
		})
	}
	for worker := range 4 {
		putters.Go(func() {
			for i := range 60 {
				key := store.Key{Namespace: fmt.Sprintf("ns-%d", i%3), Name: fmt.Sprintf("app-%d", worker%2)}
				stored := put(t, s, key, fmt.Sprint("content ", i%7))
				if _, err := os.Stat(filepath.Join(root, stored.Path)); err != nil {
					lost.Add(1)
				}
				put(t, s, store.Key{Namespace: "victim", Name: "app"}, fmt.Sprint("content ", i%7))
			}
		})
	}
	putters.Wait()
	close(done)
	collectors.Wait()
	g.Expect(lost.Load()).To(BeZero())
	g.Expect(s.Remove(t.Context(), store.Key{Namespace: "victim", Name: "app"})).To(Succeed())
	for _, name := range published(t, root) {
		g.Expect(filepath.Base(name)).To(Equal(digestOf(read(t, root, "externalartifact", name)) + ".tar.gz"))
	}
}

func TestWithdraw(t *testing.T) {
	g := NewWithT(t)
	root := t.TempDir()
	s := open(t, options(root))
	other := store.Key{Namespace: "other", Name: "app"}
	before, rejected, after := put(t, s, app, "v1"), put(t, s, app, "v2"), put(t, s, app, "v3")
	shared := put(t, s, other, "v2")

	g.Expect(s.Withdraw(t.Context(), app, rejected.SHA256)).To(Succeed())
	g.Expect(published(t, root)).To(ConsistOf(base(before), base(after), base(shared)), "held or not, and nothing else of the key")
	g.Expect(s.Withdraw(t.Context(), app, rejected.SHA256)).To(Succeed(), "it may have been done")
	scrub(t, s)
	_, ok, err := s.Check(t.Context(), other, recorded(shared))
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(ok).To(BeTrue(), "who shares the content keeps it")

	_, ok, err = s.Link(t.Context(), app, rejected.SHA256)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(ok).To(BeTrue(), "it may be accepted again")
	for _, stored := range []store.Stored{before, rejected, after} {
		g.Expect(s.Withdraw(t.Context(), app, stored.SHA256)).To(Succeed())
	}
	g.Expect(s.Withdraw(t.Context(), other, shared.SHA256)).To(Succeed())
	g.Expect(files(t, root)).To(BeEmpty())

	g.Expect(s.Withdraw(t.Context(), app, "../../"+rejected.SHA256)).To(Succeed(), "what no file of this store is named by")
	g.Expect(os.RemoveAll(filepath.Join(root, "externalartifact"))).To(Succeed())
	overwrite(t, filepath.Join(root, "externalartifact"), "in the way")
	expectDiskFault(t, s.Withdraw(t.Context(), app, rejected.SHA256), "give the controller a folder of its own")
}

// base is how published lists a file.
func base(stored store.Stored) string { return strings.TrimPrefix(stored.Path, "externalartifact/") }
