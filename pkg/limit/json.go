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

package limit

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode"

	"github.com/image-source/image-source-controller/api/v1alpha1"
	"github.com/image-source/image-source-controller/pkg/fault"
)

// JSON is how much of a JSON document is read.
type JSON struct {
	// Values is how many values, keys and ends of lists and objects there may be.
	// It bounds what decoding costs, and how deep the document can be.
	Values int
	// Elements is how many elements each of the Lists may have.
	Elements int
	// Lists are the keys at the top, in lower case, whose lists are bounded so.
	Lists []string
}

// Manifest returns the limits of a manifest or an index: a hundred layers with
// ten annotations each stay well below.
func Manifest() JSON {
	return JSON{Values: 20_000, Elements: 1000, Lists: []string{"layers", "manifests"}}
}

// Outline is what a JSON document has at its top.
type Outline struct {
	// Lengths has every key, in lower case since Go's decoder finds keys in any,
	// and how many elements its value has if that is a list.
	Lengths map[string]int
	// Values is how many the document has, as they are counted for JSON.Values.
	Values int
}

// Has tells whether the document has a key, given in lower case.
func (o Outline) Has(key string) bool {
	_, ok := o.Lengths[key]
	return ok
}

// Scan walks a document, which name calls in errors as in "the manifest". It
// decodes nothing, and stops where the document exceeds a limit. It refuses what
// two readers may see differently: a key that is twice in an object, whatever the case
// of its letters, and bytes behind the end. Below keys such as annotations and labels,
// which hold words of whoever wrote the document and no fields, case makes another key.
//
// Errors, both of which stall: LimitExceeded; InvalidArtifact for what is no
// JSON object.
func (j JSON) Scan(name string, document []byte) (Outline, error) {
	s := scanner{limits: j, name: name, decoder: json.NewDecoder(bytes.NewReader(document)), Outline: Outline{Lengths: map[string]int{}}}
	err := s.object()
	return s.Outline, err
}

type scanner struct {
	Outline

	limits  JSON
	name    string
	decoder *json.Decoder
}

func (s *scanner) object() error {
	if t, err := s.decoder.Token(); err != nil || t != json.Delim('{') {
		return s.invalid("is not a JSON object")
	}
	for s.decoder.More() {
		key, err := s.decoder.Token()
		if err != nil {
			return s.invalid("is not valid JSON: %w", err)
		}
		name := folded(fmt.Sprint(key))
		if s.Has(name) {
			return s.invalid("has the key %.64q twice", name)
		}
		if s.Lengths[name], err = s.value(name); err != nil {
			return err
		}
	}
	if _, err := s.decoder.Token(); err != nil {
		return s.invalid("is not valid JSON: %w", err)
	}
	if _, err := s.decoder.Token(); !errors.Is(err, io.EOF) {
		return s.invalid("has bytes after its end")
	}
	return nil
}

// folded returns a key in lower case. Keys that Go's decoder takes for each other
// become equal: it compares them under Unicode's case folding, by which a long s
// is an s, too.
func folded(key string) string {
	return strings.ToLower(strings.Map(func(r rune) rune {
		for {
			next := unicode.SimpleFold(r)
			if next <= r {
				return next // the first one of those that are equal
			}
			r = next
		}
	}, key))
}

// level is an object or a list that is open. There may be as many as values.
type level struct {
	object bool
	// words tells that the keys are words of whoever wrote the document, and no fields,
	// and below that those in the next value are.
	words, below bool
	// valued tells that the last key has its value.
	valued bool
	keys   map[string]struct{}
}

// name takes a key, and tells whether it is a new one.
func (l *level) name(key string) bool {
	field := folded(key)
	l.below, l.valued = l.words || holdsWords(field), false
	if !l.words {
		key = field
	}
	if l.keys == nil {
		l.keys = map[string]struct{}{}
	}
	_, before := l.keys[key]
	l.keys[key] = struct{}{}
	return !before
}

// holdsWords tells whether the keys below a field are words.
func holdsWords(field string) bool {
	return slices.Contains([]string{"annotations", "labels", "volumes", "exposedports", "optional", "predicate"}, field)
}

// value passes the value of a key, and returns how many elements it has.
func (s *scanner) value(key string) (elements int, err error) {
	most := s.limits.Values
	if slices.Contains(s.limits.Lists, key) {
		most = s.limits.Elements
	}
	for open := []level{{below: holdsWords(key)}}; ; {
		t, err := s.decoder.Token()
		if err != nil {
			return 0, s.invalid("is not valid JSON: %w", err)
		}
		if s.Values++; s.Values > s.limits.Values {
			return 0, s.exceeded("JSON values", s.limits.Values)
		}
		at := &open[len(open)-1]
		if t == json.Delim(']') || t == json.Delim('}') {
			open = open[:len(open)-1]
		} else if name, ok := t.(string); ok && at.object && at.valued {
			if !at.name(name) {
				return 0, s.invalid("has the key %.64q twice", name)
			}
			continue
		} else {
			if len(open) == 2 && !at.object {
				elements++
			}
			at.valued = true
			if t == json.Delim('[') || t == json.Delim('{') {
				open = append(open, level{object: t == json.Delim('{'), words: at.below, below: at.below, valued: true})
			}
		}
		if elements > most {
			return 0, s.exceeded(key, most)
		}
		if len(open) == 1 {
			return elements, nil
		}
	}
}

func (s *scanner) exceeded(what string, most int) error {
	return fault.Stallf(v1alpha1.ReasonLimitExceeded, "%s has more than the %d %s that are read", s.name, most, what)
}

func (s *scanner) invalid(format string, args ...any) error {
	return fault.Stallf(v1alpha1.ReasonInvalidArtifact, s.name+" "+format, args...)
}
