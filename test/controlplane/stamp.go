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

package controlplane

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// stamp identifies everything that a program is built from: its recipe, its
// pinned module and the toolchain.
func (r recipe) stamp(programs, toolchain string) (string, error) {
	sum := sha256.New()
	fmt.Fprintf(sum, "%s\n%s\n%s\n%s\n%q\n", toolchain, r.name, r.pkg, r.ldflags, r.crds)
	if err := hashModule(sum, filepath.Join(programs, r.module)); err != nil {
		return "", err
	}
	for _, module := range r.crds {
		if err := hashFile(sum, filepath.Join(programs, module, "go.mod")); err != nil {
			return "", err
		}
	}
	return hex.EncodeToString(sum.Sum(nil)), nil
}

// hashModule adds go.mod, go.sum and the Go files of the module at dir.
func hashModule(sum hash.Hash, dir string) error {
	return filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || !isBuildInput(entry.Name()) {
			return err
		}
		return hashFile(sum, path)
	})
}

func isBuildInput(name string) bool {
	return name == "go.mod" || name == "go.sum" || strings.HasSuffix(name, ".go")
}

func hashFile(sum hash.Hash, path string) error {
	content, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	fmt.Fprintf(sum, "%s %d\n", filepath.Base(path), len(content))
	sum.Write(content)
	return nil
}
