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
	"fmt"
	"strings"

	"github.com/dustin/go-humanize"

	"github.com/image-source/image-source-controller/pkg/fault"
)

// oneLine makes what may have come from anywhere fit for a line of a terminal:
// a fault.Line with the lines of the text apart from each other.
func oneLine(text string) string {
	var lines []string
	for line := range strings.Lines(text) {
		if line = fault.Line(line); line != "" {
			lines = append(lines, line)
		}
	}
	return fault.Line(strings.Join(lines, "; "))
}

// counted writes an amount of things.
func counted(n int, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return fmt.Sprintf("%d %ss", n, thing)
}

// some lists a few names, which may hold anything.
func some(names []string) string {
	const few = 3
	var quoted []string
	for _, name := range names[:min(len(names), few)] {
		quoted = append(quoted, fault.Quote(name))
	}
	list := strings.Join(quoted, ", ")
	if more := len(names) - few; more > 0 {
		list += fmt.Sprintf(" and %d more", more)
	}
	return list
}

// bytesText writes an amount for a person.
func bytesText(size int64) string {
	return humanize.IBytes(uint64(max(size, 0)))
}

// short writes a digest for a person.
func short(digest fmt.Stringer) string {
	const algorithmAndDigits = len("sha256:") + 12
	text := digest.String()
	return text[:min(len(text), algorithmAndDigits)]
}
