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

package trust

import (
	"fmt"
	"strings"
)

// maxSaid bounds how many findings an error repeats.
const maxSaid = 5

// list joins what was found, at most maxSaid of it, and what is equal once.
func list(said []string) string {
	var distinct []string
	count := map[string]int{}
	for _, s := range said {
		if count[s]++; count[s] == 1 {
			distinct = append(distinct, s)
		}
	}
	more := len(distinct) - maxSaid
	if more > 0 {
		distinct = distinct[:maxSaid]
	}
	for i, s := range distinct {
		if count[s] > 1 {
			distinct[i] = fmt.Sprintf("%s (%d times)", s, count[s])
		}
	}
	if more > 0 {
		distinct = append(distinct, fmt.Sprintf("and %d more", more))
	}
	return strings.Join(distinct, "; ")
}
