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
	"bytes"
	"compress/zlib"
	"context"
	"crypto/sha1"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path"
	"path/filepath"
	"strings"
	"testing"

	seccomp "github.com/elastic/go-seccomp-bpf"
	"golang.org/x/sys/unix"
)

// confineCalls has the kernel kill this process at once, for good, when it starts a
// program or opens a socket.
func confineCalls(t testing.TB) {
	t.Helper()
	forks := seccomp.NameWithConditions{Name: "clone", Conditions: []seccomp.Condition{
		{Argument: 0, Operation: seccomp.BitsNotSet, Value: unix.CLONE_THREAD},
	}}
	err := seccomp.LoadFilter(seccomp.Filter{
		NoNewPrivs: true,
		Flag:       seccomp.FilterFlagTSync,
		Policy: seccomp.Policy{
			DefaultAction: seccomp.ActionAllow,
			Syscalls: []seccomp.SyscallGroup{
				{Action: seccomp.ActionKillProcess, Names: []string{"execve", "execveat", "socket", "connect", "io_uring_setup", "ptrace"}, NamesWithCondtions: []seccomp.NameWithConditions{forks}},
				// The C library starts threads with clone where the kernel has no clone3.
				{Action: seccomp.ActionErrno | seccomp.Action(unix.ENOSYS), Names: []string{"clone3"}},
			},
		},
	})
	if err != nil {
		t.Fatalf("this kernel does not filter system calls: %v", err)
	}
}

// secret is in a file beside the tree, which no link may lead to.
const secret = "not-for-the-registry"

// pushConfined runs a dry run of push with all of its work in this process.
func pushConfined(t *testing.T, args ...string) result {
	t.Helper()
	var out, said bytes.Buffer
	a := &app{cancel: func() {}, streams: streams{in: strings.NewReader(""), out: &out, err: &said, lookupEnv: func(string) (string, bool) { return "", false }}}
	defer func() { a.cancel() }()
	// The command starts a process for this.
	a.check = func(ctx context.Context, _ streams, job checkJob, tell func(message)) error {
		return checkTree(ctx, os.DirFS(job.folder), tell)
	}
	root := newRoot(a)
	root.SetArgs(append(args, "-t", "example.com/org/app:v1", "--dry-run", "-o", "json"))
	executed, err := root.ExecuteContextC(t.Context())
	code := exitOK
	if err != nil {
		code = fail(executed.Context(), a.err, err)
	}
	return result{code, out.String(), said.String()}
}

// FuzzPushOfATree pushes trees with all that a stranger can put into one, and with
// the repository of a stranger around it.
func FuzzPushOfATree(f *testing.F) {
	for _, tree := range plantedTrees() {
		for way := range ways() {
			f.Add(byte(way), tree)
		}
	}
	folder := confinable(f)
	if folder != "" {
		// As in the process that checks packed files.
		http.DefaultTransport = noNetwork{}
		f.Setenv("PATH", "")
		confine(f, folder)
		confineCalls(f)
	}
	f.Fuzz(func(t *testing.T, way byte, tree string) {
		if folder == "" {
			return
		}
		dir := t.TempDir()
		write(t, dir, map[string]string{"home/a.yaml": secret + ": 1\n", "home/" + secret + ".yaml": "a: 1\n"})
		root := filepath.Join(dir, "tree")
		plant(t, root, tree)
		t.Chdir(root)
		before := standing(t, dir)
		named := ways()[int(way)%len(ways())]
		run := pushConfined(t, "-f", named)
		if strings.Contains(run.err, "permission denied") {
			t.Errorf("it writes outside of its output: %s", run.err)
		}
		if strings.Contains(run.out+run.err, secret) {
			t.Errorf("it reads outside of the tree: %s", run.out+run.err)
		}
		if after := standing(t, dir); after != before {
			t.Errorf("the tree has changed from\n%s\nto\n%s", before, after)
		}
	})
}

// ways are the paths that are pushed.
func ways() []string { return []string{".", "deploy", "deploy/a.yaml", "deploy/../app", "sub/deploy"} }

// separator is between the entries of a tree.
const separator = "\x00\n\x00"

// plant makes a tree of entries: a letter for the kind, the path, a line break and
// the content or the target of a link.
func plant(t *testing.T, dir, entries string) {
	t.Helper()
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	const most = 100
	for i, entry := range strings.Split(entries, separator) {
		name, content, _ := strings.Cut(entry, "\n")
		if i == most || len(name) < 2 || strings.ContainsRune(name, 0) {
			continue
		}
		kind, name := name[0], path.Clean(name[1:])
		// What cannot be planted, because of what is there, is left out.
		_ = root.MkdirAll(path.Dir(name), 0o755)
		switch kind {
		case 'f':
			_ = root.WriteFile(name, []byte(content), 0o644)
		case 'x':
			_ = root.WriteFile(name, []byte(content), 0o755)
		case 'l':
			_ = root.Symlink(content, name)
		case 'p':
			if filepath.IsLocal(name) {
				_ = unix.Mkfifo(filepath.Join(dir, name), 0o644)
			}
		case 'd':
			_ = root.MkdirAll(name, 0o755)
		}
	}
}

// standing lists what is in a folder, with all that a write would change.
func standing(t *testing.T, dir string) string {
	t.Helper()
	var all strings.Builder
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err == nil {
			fmt.Fprintln(&all, path, info.Mode(), info.Size(), info.ModTime().UnixNano())
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all.String()
}

// planted writes entries as plant reads them.
func planted(entries ...string) string { return strings.Join(entries, separator) }

// looseObject is the entry of an object of a repository, and its name.
func looseObject(kind, body string) (entry, id string) {
	whole := fmt.Sprintf("%s %d\x00%s", kind, len(body), body)
	var file bytes.Buffer
	w := zlib.NewWriter(&file)
	_, _ = w.Write([]byte(whole)) // a buffer never fails
	_ = w.Close()
	id = fmt.Sprintf("%x", sha1.Sum([]byte(whole)))
	return "f.git/objects/" + id[:2] + "/" + id[2:] + "\n" + file.String(), id
}

// plantedTrees are the seeds.
func plantedTrees() []string {
	const (
		program  = "/bin/sh -c 'echo >ran'"
		manifest = "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: a\n"
	)
	settings := hostileSettings(program)
	tree, treeID := looseObject("tree", "")
	commit, id := looseObject("commit", "tree "+treeID+"\nauthor a <a> 1 +0000\ncommitter a <a> 1767319445 +0100\n\none\n")
	tag, tagID := looseObject("tag", "object "+id+"\ntype commit\ntag v1\ntagger a <a> 1 +0000\n\none\n")
	repository := planted("f.git/HEAD\nref: refs/heads/main\n", "f.git/refs/heads/main\n"+id+"\n", "f.git/config\n"+settings, "f.git/refs/tags/v1\n"+tagID+"\n",
		"f.git/packed-refs\n# pack-refs with: peeled fully-peeled sorted \n"+tagID+" refs/tags/v2\n^"+id+"\n",
		"f.git/info/attributes\n* filter=x diff=x\n", "x.git/hooks/post-checkout\n"+program, tree, commit, tag)
	deploy := planted("fdeploy/a.yaml\n"+manifest, "fapp/a.yaml\n"+manifest, "fsub/deploy/a.yaml\n"+manifest)
	return []string{
		deploy,
		planted(deploy, repository),
		planted(deploy, repository, "fdeploy/.gitattributes\n*.yaml filter=lfs ident working-tree-encoding=utf-16\n", "fdeploy/.sourceignore\n*.png\n!a.yaml\n"),
		planted(deploy, repository, "f.git/HEAD\n"+id+"\n", "f.git/objects/info/alternates\n../../../home\n", "f.git/commondir\n../../home\n"),
		planted(deploy, "f.git\ngitdir: ../home\n"),
		planted(deploy, "l.git\n../home\n"),
		planted(deploy, "p.git/HEAD\n", "p.git/config\n"),
		planted(deploy, "f.git/HEAD\nref: refs/heads/main\n", "l.git/refs\n../../home\n", "l.git/objects\n../../home\n"),
		planted("fdeploy/HEAD\nref: refs/heads/main\n", "fdeploy/config\n"+settings, "ddeploy/objects\n", "ddeploy/refs\n", "fdeploy/index\nDIRC", "fdeploy/a.yaml\n"+manifest),
		planted("ldeploy\n../home", "lapp\n../home", "lsub\n.."),
		planted("ddeploy\n", "ldeploy/a.yaml\n../../home/a.yaml", "ldeploy/.sourceignore\n../../home/a.yaml", "fapp/a.yaml\n"+manifest),
		planted("pdeploy/a.yaml\n", "papp\n"),
		planted(deploy, "fdeploy/kustomization.yaml\nresources: [a.yaml, https://127.0.0.1/b.yaml]\ngenerators: [HTTP://127.0.0.1/c]\nhelmCharts: [{name: a, repo: https://127.0.0.1}]\n"),
		planted(deploy, "fdeploy/kustomization.yaml\nconfigMapGenerator: [{name: a, files: [a=../../home/a.yaml, file:///etc/passwd]}]\ncrds: [git@127.0.0.1:a/b]\n"),
		planted(deploy, "fdeploy/Chart.yaml\nname: a\nversion: 1.0.0\n", "fdeploy/templates/a.yaml\n{{ .Values.a }}\n", "fdeploy/templates/kustomization.yaml\nresources: [../a.yaml]\n"),
	}
}
