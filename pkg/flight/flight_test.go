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

package flight_test

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/image-source/image-source-controller/pkg/flight"
)

const patience = 10 * time.Second

func TestCallersThatAskAtTheSameTimeShareOneAnswer(t *testing.T) {
	var g flight.Group[string, int]
	var runs atomic.Int32
	release := make(chan struct{})
	work := func(context.Context) (int, error) {
		runs.Add(1)
		<-release
		return 42, nil
	}
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() {
			if v, _, err := g.Do(t.Context(), "k", work); v != 42 || err != nil {
				t.Errorf("got %d, %v", v, err)
			}
		})
	}
	waitFor(t, func() bool { return flight.Waiters(&g, "k") == 50 })
	close(release)
	wg.Wait()
	if n := runs.Load(); n != 1 {
		t.Errorf("work ran %d times", n)
	}
}

func TestWorkGoesOnWhenTheCallerWhoStartedItLeaves(t *testing.T) {
	var g flight.Group[string, int]
	started, release := make(chan struct{}), make(chan struct{})
	first, leave := context.WithCancel(t.Context())
	work := func(ctx context.Context) (int, error) {
		close(started)
		select {
		case <-release:
			return 7, nil
		case <-ctx.Done():
			return 0, ctx.Err()
		}
	}
	firstErr := make(chan error, 1)
	go func() {
		_, _, err := g.Do(first, "k", work)
		firstErr <- err
	}()
	<-started
	second := make(chan int, 1)
	go func() {
		v, shared, err := g.Do(t.Context(), "k", func(context.Context) (int, error) {
			return 0, errors.New("the second caller must join, not start")
		})
		if !shared || err != nil {
			t.Errorf("shared %v, err %v", shared, err)
		}
		second <- v
	}()
	waitFor(t, func() bool { return flight.Waiters(&g, "k") == 2 })
	leave()
	if err := <-firstErr; !errors.Is(err, context.Canceled) {
		t.Errorf("the caller who left got %v", err)
	}
	close(release)
	if v := <-second; v != 7 {
		t.Errorf("the caller who stayed got %d", v)
	}
}

func TestWorkIsCancelledWhenTheLastCallerLeaves(t *testing.T) {
	var g flight.Group[string, int]
	ctx, leave := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	started := make(chan struct{})
	go g.Do(ctx, "k", func(ctx context.Context) (int, error) {
		close(started)
		<-ctx.Done()
		ended <- ctx.Err()
		return 0, ctx.Err()
	})
	<-started
	leave()
	select {
	case <-ended:
	case <-time.After(patience):
		t.Fatal("the work was not cancelled")
	}
	v, shared, err := g.Do(t.Context(), "k", func(context.Context) (int, error) { return 1, nil })
	if v != 1 || shared || err != nil {
		t.Errorf("a later caller must start afresh: got %d, shared %v, %v", v, shared, err)
	}
}

func TestAPanicOfTheWorkIsAnErrorOfItsCallers(t *testing.T) {
	var g flight.Group[string, int]
	_, _, err := g.Do(t.Context(), "k", func(context.Context) (int, error) { panic("boom") })
	var panicked *flight.PanicError
	if !errors.As(err, &panicked) || panicked.Value != "boom" || len(panicked.Stack) == 0 {
		t.Errorf("got %v", err)
	}
}

func waitFor(t *testing.T, condition func() bool) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	deadline := time.After(patience)
	for !condition() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatal("condition not met in time")
		}
	}
}
