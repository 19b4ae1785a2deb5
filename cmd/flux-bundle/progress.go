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
	"io"
	"sync/atomic"
	"time"

	"github.com/schollz/progressbar/v3"
)

// transfer is a verb for bytes on their way.
type transfer string

const (
	upwards   transfer = "upload"
	downwards transfer = "download"
)

// doing and done are forms of the verb.
func (t transfer) doing() string { return string(t) + "ing" }
func (t transfer) done() string  { return string(t) + "ed" }

// between says which end of the way a repository is.
func (t transfer) between(repository string) string {
	if t == downwards {
		return "from " + repository
	}
	return "to " + repository
}

// progress shows a transfer: a bar on a terminal, lines elsewhere.
type progress struct {
	streams
	transfer
	// what is transferred, and the repository at the other end.
	what, repository string
	// lender is a repository of the same registry that has it already; empty when
	// none is known.
	lender string
	size   int64
	bar    *progressbar.ProgressBar
	// began tells that any byte was asked for, sent how many there were, and endLines
	// ends the lines about it.
	began    bool
	sent     count
	endLines func()
}

// start is called when the bytes are read from their start, which a second
// attempt does again.
func (p *progress) start() io.Writer {
	if p.bar != nil {
		p.bar.Reset()
		return p.bar
	}
	again := p.began
	p.began = true
	if !isTerminal(p.err) {
		if again {
			p.statusf("%s %s %s again", p.doing(), p.what, p.between(p.repository))
		} else {
			p.statusf("%s %s (%s) %s", p.doing(), p.what, bytesText(p.size), p.between(p.repository))
			p.endLines = p.tellLines()
		}
		p.sent.Store(0)
		return &p.sent
	}
	const (
		width    = 30
		throttle = 100 * time.Millisecond
	)
	p.bar = progressbar.NewOptions64(p.size,
		progressbar.OptionSetWriter(unguarded(p.err)),
		progressbar.OptionSetDescription(p.doing()+" "+p.what),
		progressbar.OptionShowBytes(true),
		progressbar.OptionUseIECUnits(true),
		progressbar.OptionSetWidth(width),
		progressbar.OptionThrottle(throttle),
		progressbar.OptionSetRenderBlankState(true),
		progressbar.OptionClearOnFinish(),
	)
	return p.bar
}

// linesEvery is how often a line tells how far a transfer is. Some CI services end a
// job that prints nothing for minutes.
const linesEvery = 10 * time.Second

// tellLines prints lines until the function that it returns is called, which waits for
// the last one.
func (p *progress) tellLines() (end func()) {
	ended, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(linesEvery)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				p.statusf("%s %s: %s of %s", p.doing(), p.what, bytesText(p.sent.Load()), bytesText(p.size))
			case <-ended:
				return
			}
		}
	}()
	return func() {
		close(ended)
		<-done
	}
}

// count counts the bytes that are written to it.
type count struct{ atomic.Int64 }

// Write implements io.Writer.
func (c *count) Write(part []byte) (int, error) {
	c.Add(int64(len(part)))
	return len(part), nil
}

// end ends the bar or the lines and tells the result of the transfer.
func (p *progress) end(err error) {
	if p.endLines != nil {
		p.endLines()
	}
	if p.bar != nil {
		_ = p.bar.Clear() // what cannot be cleared stays: nothing else to do on a broken terminal
	}
	switch {
	case err != nil:
	case p.began:
		p.statusf("%s %s (%s) %s", p.done(), p.what, bytesText(p.size), p.between(p.repository))
	case p.lender != "":
		p.statusf("%s is in %s without another upload: the registry has it from %s", p.what, p.repository, p.lender)
	default:
		p.statusf("%s is already in %s", p.what, p.repository)
	}
}

// layerText names a layer for a person.
func layerText(digest fmt.Stringer) string { return "layer " + short(digest) }
