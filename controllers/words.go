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
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/fluxcd/pkg/apis/meta"
	"github.com/fluxcd/pkg/runtime/conditions"

	"github.com/image-source/image-source-controller/pkg/fault"
)

// localAddress matches the local end of a connection in front of the remote one. Its port
// changes at each attempt.
var localAddress = regexp.MustCompile(`(?:\[[0-9A-Fa-f:.]+(?:%\w+)?\]|\d+\.\d+\.\d+\.\d+):\d+->`)

// steady returns the message of a failure without the parts that differ between two attempts
// with the same cause. If only ids, times and addresses differ from the present message of
// the object, it returns the present one: a condition without news is not written. A word
// with one of the subjects never counts as such a part.
func steady(obj conditions.Getter, failure *fault.Error, message string, subjects ...string) string {
	message = localAddress.ReplaceAllString(message, "")
	before := conditions.Get(obj, meta.ReadyCondition)
	if failure.Class != fault.Retry || before == nil || before.Status != metav1.ConditionFalse || before.Reason != failure.Reason {
		return message
	}
	was, now := wordsOf(before.Message), wordsOf(message)
	if len(was) != len(now) {
		return message
	}
	for i := range now {
		isSubject := func(subject string) bool {
			return subject != "" && (strings.Contains(now[i], subject) || strings.Contains(was[i], subject))
		}
		if was[i] != now[i] && (!isVarying(was[i]) || !isVarying(now[i]) || slices.ContainsFunc(subjects, isSubject)) {
			return message
		}
	}
	return before.Message
}

func wordsOf(message string) []string {
	return strings.FieldsFunc(message, func(r rune) bool { return strings.ContainsRune(" \t\"'`(){}[]<>,;=\\", r) })
}

// isID matches the id that a server may give to one request.
var isID = regexp.MustCompile(`^[0-9A-Za-z_-]{8,}$`)

// isVarying reports whether a word is an id, a time, a duration or an address.
func isVarying(word string) bool {
	if !strings.ContainsAny(word, "0123456789") {
		return false
	}
	word = strings.TrimRight(word, ".:")
	_, notDuration := time.ParseDuration(word)
	_, notAddress := netip.ParseAddrPort(word)
	isTime := strings.Count(word, ":") == 2 && !strings.ContainsAny(word, "/@")
	return notDuration == nil || notAddress == nil || isTime || isID.MatchString(word)
}
