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
	"strings"

	"github.com/spf13/cobra"
)

// output is the flag of verbs whose result can be read by programs.
type output struct{ format string }

// bind adds -o to the flags of a verb.
func (o *output) bind(cmd *cobra.Command) {
	cmd.Flags().StringVarP(&o.format, "output", "o", "text", "`format` of the result on standard output: text, json or yaml")
	complete(cmd, "output", outputs()...)
}

func outputs() []string { return []string{"text", "json", "yaml"} }

// check refuses an unknown format, before any work is done.
func (o *output) check() error {
	return oneOf("output", o.format, outputs())
}

// print writes a result to w: as JSON or YAML where that is asked for, else as
// text writes it.
func (o *output) print(w io.Writer, result any, text func(w io.Writer) error) error {
	encode := encodeJSON
	switch o.format {
	case "json":
	case "yaml":
		encode = encodeYAML
	default:
		return text(w)
	}
	body, err := encode(result)
	if err != nil {
		return err
	}
	_, err = w.Write(body)
	return err
}

// page is text for a person, of which nothing is an order to a terminal.
type page struct{ strings.Builder }

// linef adds a line. Its arguments may come from anywhere.
func (p *page) linef(format string, args ...any) {
	fmt.Fprintln(p, printable(fmt.Sprintf(format, args...)))
}

// fieldf adds a line with a name, unless the value is empty.
func (p *page) fieldf(name, format string, args ...any) {
	if value := fmt.Sprintf(format, args...); value != "" {
		p.linef("%-13s%s", name+":", value)
	}
}
