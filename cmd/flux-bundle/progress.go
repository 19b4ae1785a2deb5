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
	"time"

	"github.com/dustin/go-humanize"
	"github.com/schollz/progressbar/v3"
)

// progress shows an upload: a bar on a terminal, lines elsewhere.
type progress struct {
	app *app
	// what is uploaded, and the repository that it goes to.
	what, to string
	// lender is a repository of the same registry that has it already; empty when
	// none is known.
	lender string
	size   int64
	bar    *progressbar.ProgressBar
	// began tells that any byte was sent.
	began bool
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
	if !isTerminal(p.app.err) {
		if again {
			p.app.statusf("uploading %s to %s again", p.what, p.to)
		} else {
			p.app.statusf("uploading %s (%s) to %s", p.what, bytesText(p.size), p.to)
		}
		return io.Discard
	}
	const (
		width    = 30
		throttle = 100 * time.Millisecond
	)
	p.bar = progressbar.NewOptions64(p.size,
		progressbar.OptionSetWriter(p.app.err),
		progressbar.OptionSetDescription("uploading "+p.what),
		progressbar.OptionShowBytes(true),
		progressbar.OptionUseIECUnits(true),
		progressbar.OptionSetWidth(width),
		progressbar.OptionThrottle(throttle),
		progressbar.OptionSetRenderBlankState(true),
		progressbar.OptionClearOnFinish(),
	)
	return p.bar
}

// end ends the bar and says what became of the upload.
func (p *progress) end(err error) {
	if p.bar != nil {
		_ = p.bar.Clear() // what cannot be cleared stays: nothing else to do on a broken terminal
	}
	switch {
	case err != nil:
	case p.began:
		p.app.statusf("uploaded %s (%s) to %s", p.what, bytesText(p.size), p.to)
	case p.lender != "":
		p.app.statusf("%s is in %s without another upload: the registry has it from %s", p.what, p.to, p.lender)
	default:
		p.app.statusf("%s is already in %s", p.what, p.to)
	}
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
