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

import "fmt"

type shownFile struct {
	Path string `json:"path"`
	// Copy is set from 2 where a chart has a path more than once.
	Copy       int    `json:"copy,omitempty"`
	Size       int64  `json:"size"`
	SHA256     string `json:"sha256"`
	Executable bool   `json:"executable,omitempty"`
	// RunBy names the program that obeys the file by itself once it is pulled.
	RunBy string `json:"runBy,omitempty"`
}

func shownOf(f treeFile) shownFile {
	h, _ := hazardOf(f.path)
	return shownFile{Path: f.path, Copy: f.copy, Size: f.size, SHA256: f.digest, Executable: f.executable(), RunBy: h.by}
}

// String describes the content on one line.
func (f *shownFile) String() string {
	return fmt.Sprintf("%s sha256:%s", bytesText(f.Size), f.SHA256)
}
