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

package operator

import (
	"math"
	"runtime/debug"
)

// SpareMemory lowers the memory limit of the Go runtime to nine tenths of what
// GOMEMLIMIT says, which is the limit of the container: the runtime takes it for a goal
// and passes it by some percent under load, and not all memory of a process is its own.
// Without GOMEMLIMIT it does nothing. Call it once, at the start of the process.
func SpareMemory() {
	if limit := debug.SetMemoryLimit(-1); limit != math.MaxInt64 {
		debug.SetMemoryLimit(limit / 10 * 9)
	}
}
