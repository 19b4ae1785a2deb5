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

package registry

import (
	"context"
	"errors"
	"time"

	"github.com/image-source/image-source-controller/pkg/flight"
)

// cutShort is the failure of shared work whose time, which is that of the
// caller who started it, was over.
type cutShort struct{ err error }

func (e *cutShort) Error() string { return e.err.Error() }
func (e *cutShort) Unwrap() error { return e.err }

// sharing is work that all callers of the same key share.
type sharing[K comparable, V any] struct {
	flight.Group[K, V]
	// timeout bounds the work, whatever time its callers have.
	timeout time.Duration
}

// do returns the result of work that is shared with all callers of the same
// key. Work that another caller started and had no time to finish is begun
// again: the shortest timeout of many must not decide for all.
func (s *sharing[K, V]) do(ctx context.Context, key K, work func(context.Context) (V, error)) (V, error) {
	for {
		value, shared, err := s.Do(ctx, key, func(ctx context.Context) (V, error) {
			bounded, cancel := context.WithTimeout(ctx, s.timeout)
			defer cancel()
			value, err := work(bounded)
			if err != nil && ctx.Err() != nil {
				err = &cutShort{err: err}
			}
			return value, err
		})
		var cut *cutShort
		if !errors.As(err, &cut) {
			return value, err
		}
		if !shared || ctx.Err() != nil {
			return value, cut.err
		}
	}
}

// doUnless returns the known value, else the result of shared work. It looks again before
// the work: another caller may just have learned it.
func (s *sharing[K, V]) doUnless(ctx context.Context, known func() (V, bool), key K, work func(context.Context) (V, error)) (V, error) {
	if value, ok := known(); ok {
		return value, nil
	}
	return s.do(ctx, key, func(ctx context.Context) (V, error) {
		if value, ok := known(); ok {
			return value, nil
		}
		return work(ctx)
	})
}
