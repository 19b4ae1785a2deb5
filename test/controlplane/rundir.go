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

package controlplane

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// keptRuns is how many ended control planes keep their logs.
const keptRuns = 20

// runDir holds the files of one running control plane:
//
//	lock   held as long as the control plane, or its process, lives
//	data/  state of the programs, removed at the end
//	logs/  kept for whoever reads an error afterwards
type runDir struct {
	path   string
	unlock func()
}

// newRunDir makes a directory for a control plane below dir and removes what
// earlier ones left there whose process was killed.
func newRunDir(dir string) (*runDir, error) {
	runs := filepath.Join(dir, "runs")
	if err := os.MkdirAll(runs, 0o755); err != nil {
		return nil, fmt.Errorf("preparing the run directory: %w", err)
	}
	if err := sweepRuns(runs); err != nil {
		return nil, fmt.Errorf("removing earlier runs below %s: %w", runs, err)
	}
	path, err := os.MkdirTemp(runs, time.Now().Format("20060102-150405-"))
	if err != nil {
		return nil, fmt.Errorf("preparing the run directory: %w", err)
	}
	r := &runDir{path: path}
	if r.unlock, err = tryLock(filepath.Join(path, "lock")); err != nil {
		return nil, fmt.Errorf("preparing the run directory: %w", err)
	}
	if err := errors.Join(os.Mkdir(r.data(), 0o755), os.Mkdir(r.logs(), 0o755)); err != nil {
		r.unlock()
		return nil, fmt.Errorf("preparing the run directory: %w", err)
	}
	return r, nil
}

func (r *runDir) data() string { return filepath.Join(r.path, "data") }
func (r *runDir) logs() string { return filepath.Join(r.path, "logs") }

// close removes all but the logs.
func (r *runDir) close() error {
	defer r.unlock()
	return removeData(r.path)
}

// removeData removes the data of a run, but nothing of what is mounted there.
func removeData(run string) error {
	data := filepath.Join(run, "data")
	if err := detachBelow(data); err != nil {
		return err
	}
	return os.RemoveAll(data)
}

// sweepRuns removes the data of runs that have ended, and all of them but for the
// latest. A run without a lock file is one that is just being made.
func sweepRuns(runs string) error {
	locks, err := filepath.Glob(filepath.Join(runs, "*", "lock"))
	if err != nil {
		return err
	}
	slices.SortFunc(locks, func(a, b string) int { return cmp.Compare(b, a) }) // the names begin with the time
	for i, lock := range locks {
		unlock, err := tryLock(lock)
		if errors.Is(err, errLocked) || errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		run := filepath.Dir(lock)
		err = removeData(run)
		if err == nil && i >= keptRuns {
			err = os.RemoveAll(run)
		}
		unlock()
		if err != nil {
			return err
		}
	}
	return nil
}
