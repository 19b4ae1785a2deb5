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
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"sync"
)

// profile runs a scenario once more with the profilers of the contenders on, if
// that is asked for.
func (b *bench) profile(ctx context.Context, s scenario) error {
	if !b.options.profile {
		return nil
	}
	for i, c := range contenders() {
		if s.alone && i != 0 {
			continue
		}
		if _, err := b.turn(ctx, s, c, true); err != nil {
			return fmt.Errorf("profile: %w", err)
		}
	}
	return nil
}

// profileSeconds is long enough for what is worth a profile; what is done earlier
// adds no samples.
const profileSeconds = 60

// record profiles a process from now on. The function that it returns ends that
// and keeps the profile, beside one of the memory.
func (l *lap) record(ctx context.Context, scenario string) (end func()) {
	folder := filepath.Join(l.options.out, "profiles")
	file := func(kind string) string {
		return filepath.Join(folder, fmt.Sprintf("%s-%s-%s.pprof", scenario, l.contender, kind))
	}
	var recording sync.WaitGroup
	recording.Go(func() {
		l.keep(ctx, fmt.Sprintf("profile?seconds=%d", profileSeconds), file("cpu"))
	})
	return func() {
		l.keep(ctx, "allocs", file("allocs"))
		recording.Wait()
	}
}

// keep writes what a profiler says to a file. A profile that is missing does not
// spoil a measurement.
func (l *lap) keep(ctx context.Context, what, path string) {
	err := func() error {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+l.process.metrics+"/debug/pprof/"+what, http.NoBody)
		if err != nil {
			return err
		}
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			return err
		}
		defer response.Body.Close()
		if response.StatusCode != http.StatusOK {
			return fmt.Errorf("the profiler answers %s", response.Status)
		}
		file, err := os.Create(path)
		if err != nil {
			return err
		}
		defer file.Close()
		_, err = io.Copy(file, response.Body)
		return err
	}()
	if err != nil {
		l.say("no profile %s: %v", path, err)
	}
}
