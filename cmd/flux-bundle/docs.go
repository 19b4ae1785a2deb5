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
	"errors"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"
)

// newDocs returns the verb that writes the reference of all others. It is for
// those who build this program, and hidden from those who use it.
func newDocs() *cobra.Command {
	return &cobra.Command{
		Use:     "docs FOLDER",
		Short:   "Write the reference of all commands as Markdown",
		Example: "  flux bundle docs docs/cli",
		Hidden:  true,
		Args:    cobra.ExactArgs(1),
		RunE:    func(cmd *cobra.Command, args []string) error { return writeDocs(cmd.Root(), args[0]) },
	}
}

// writeDocs replaces the pages in a folder by those of a command and all below it.
func writeDocs(root *cobra.Command, dir string) error {
	stale, err := filepath.Glob(filepath.Join(dir, strings.ReplaceAll(root.CommandPath(), " ", "_")+"*.md"))
	if err != nil {
		return err
	}
	for _, page := range stale {
		err = errors.Join(err, os.Remove(page))
	}
	// The scripts of shells are explained where they are asked for.
	root.RemoveCommand(commandsNamed(root, "completion", "help")...)
	prepareDocs(root)
	return errors.Join(err, doc.GenMarkdownTreeCustom(root, dir, func(string) string { return "" }, path.Base))
}

func commandsNamed(root *cobra.Command, names ...string) []*cobra.Command {
	var found []*cobra.Command
	for _, name := range names {
		if cmd, _, err := root.Find([]string{name}); err == nil && cmd != root {
			found = append(found, cmd)
		}
	}
	return found
}

// prepareDocs makes pages that depend on nothing but the commands. Indented text
// would become code.
func prepareDocs(cmd *cobra.Command) {
	cmd.DisableAutoGenTag = true
	cmd.Long = strings.TrimSpace(cmd.Long)
	for _, verb := range cmd.Commands() {
		prepareDocs(verb)
	}
}
