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
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

const modulePath = "github.com/image-source/image-source-controller"

// Root returns the root of the repository that holds the working directory.
func Root() (string, error) {
	working, err := os.Getwd()
	if err != nil {
		return "", fmt.Errorf("locating the repository: %w", err)
	}
	for dir := working; ; dir = filepath.Dir(dir) {
		found, err := declaresModule(filepath.Join(dir, "go.mod"), modulePath)
		if err != nil {
			return "", fmt.Errorf("locating the repository: %w", err)
		}
		if found {
			return dir, nil
		}
		if dir == filepath.Dir(dir) {
			return "", fmt.Errorf("no go.mod of %s in %s or above it; run this inside the repository", modulePath, working)
		}
	}
}

// CRDDir returns the directory with the CustomResourceDefinitions of
// ImageRepository, ImagePolicy and ExternalArtifact: what the controllers under
// test read and write.
func CRDDir() (string, error) {
	root, err := Root()
	if err != nil {
		return "", err
	}
	return filepath.Join(root, "test", "controlplane", "crds"), nil
}

// defaultDir is where the programs of the repository at root are built.
func defaultDir(root string) string {
	return filepath.Join(root, "bin", "controlplane")
}

// dirOrDefault returns dir, or the directory of the repository if dir is empty.
func dirOrDefault(dir string) (string, error) {
	if dir != "" {
		return filepath.Abs(dir)
	}
	root, err := Root()
	if err != nil {
		return "", err
	}
	return defaultDir(root), nil
}

func declaresModule(goMod, module string) (bool, error) {
	content, err := os.ReadFile(goMod)
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	for line := range strings.Lines(string(content)) {
		if strings.TrimSpace(line) == "module "+module {
			return true, nil
		}
	}
	return false, nil
}
