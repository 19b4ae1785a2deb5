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

package controllers

import (
	"crypto/sha256"
	"strings"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"

	imagev1 "github.com/fluxcd/image-reflector-controller/api/v1"
)

// arrivals has the picks of policies that wait for their publication. Its zero value is
// ready.
type arrivals struct {
	mu    sync.Mutex
	picks map[types.NamespacedName]awaitedPick
}

type awaitedPick struct {
	pick pickHash
	// since is zero after the pick was published.
	since time.Time
}

// pickHash identifies the pick of a policy. The pick itself is not stored: the schema of a
// status does not limit its size, and it would outlive the policy.
type pickHash [sha256.Size]byte

func hashOf(pick imagev1.ImageRef) pickHash {
	return sha256.Sum256([]byte(strings.Join([]string{pick.Name, pick.Tag, pick.Digest}, "\n")))
}

// await notes the time when the current pick of a policy was first seen.
func (a *arrivals) await(key types.NamespacedName, pick pickHash) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if last, ok := a.picks[key]; ok && last.pick == pick {
		return
	}
	if a.picks == nil {
		a.picks = map[types.NamespacedName]awaitedPick{}
	}
	a.picks[key] = awaitedPick{pick: pick, since: time.Now()}
}

// arrived ends the wait for a pick and returns its start; zero if it did not wait, or if
// there is a newer pick.
func (a *arrivals) arrived(key types.NamespacedName, pick pickHash) (since time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	last, ok := a.picks[key]
	if !ok || last.pick != pick {
		return time.Time{}
	}
	a.picks[key] = awaitedPick{pick: pick}
	return last.since
}

func (a *arrivals) forget(key types.NamespacedName) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.picks, key)
}
