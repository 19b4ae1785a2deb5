//go:build !unix

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
	"io"
	"io/fs"
	"os"
)

// links cannot be asked for here: a blob is taken to be in use, and none is
// collected. The command line, which is all that runs on such a platform, keeps none.
func links(fs.FileInfo) uint64 { return 2 }

// syncFolder does nothing where folders cannot be flushed.
func syncFolder(*os.Root, string) error { return nil }

// claim claims nothing: the command line makes a storage path of its own.
func claim(folder string) (io.Closer, error) { return os.Open(folder) }
