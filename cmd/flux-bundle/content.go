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
	"mime"
	"os"
	"regexp"
	"strings"

	"github.com/spf13/cobra"

	sourcev1 "github.com/fluxcd/source-controller/api/v1"

	"github.com/image-source/image-source-controller/api/v1alpha1"
	"github.com/image-source/image-source-controller/pkg/format"
)

// contentFlags say how an artifact becomes content, as the fields of an
// ArtifactRepository do.
type contentFlags struct {
	format, platform string
	layerType        string
	layerOperation   string
	ignorePaths      []string
}

// bind adds the flags to a verb.
func (f *contentFlags) bind(cmd *cobra.Command) {
	fs := cmd.Flags()
	fs.StringVar(&f.format, "format", v1alpha1.FormatAuto, "`format` that the artifact must have, as spec.format")
	fs.StringVar(&f.platform, "platform", "", "manifest of an index to read, by its `os/architecture`, as spec.platform (default: the only one, else linux/amd64)")
	fs.StringVar(&f.layerType, "layer-media-type", "", "media `type` of the one layer to read, as spec.layerSelector.mediaType")
	fs.StringVar(&f.layerOperation, "layer-operation", "", "`operation` on that layer, extract or copy, as spec.layerSelector.operation")
	fs.StringSliceVar(&f.ignorePaths, "ignore-paths", nil, "`patterns` of files to leave out, in the format of .sourceignore, as spec.ignore")
	complete(cmd, "format", formats()...)
	complete(cmd, "platform", "linux/amd64", "linux/arm64")
	complete(cmd, "layer-operation", layerOperations()...)
}

// formats are the values of spec.format.
func formats() []string {
	return []string{
		v1alpha1.FormatAuto, v1alpha1.FormatFlux, v1alpha1.FormatHelm, v1alpha1.FormatTekton, v1alpha1.FormatImgpkg,
		v1alpha1.FormatFiles, v1alpha1.FormatKyverno, v1alpha1.FormatImage,
	}
}

// layerOperations are the values of spec.layerSelector.operation.
func layerOperations() []string { return []string{sourcev1.OCILayerExtract, sourcev1.OCILayerCopy} }

// options are the flags as the code of the controller takes them.
func (f *contentFlags) options(limits format.Limits) format.Options {
	o := format.Options{Format: f.format, Platform: f.platform, Limits: limits}
	if f.layerType != "" || f.layerOperation != "" {
		o.LayerSelector = &sourcev1.OCILayerSelector{MediaType: f.layerType, Operation: f.layerOperation}
	}
	if len(f.ignorePaths) > 0 {
		patterns := f.patterns()
		o.Ignore = &patterns
	}
	return o
}

// patterns are the lines of a .sourceignore file.
func (f *contentFlags) patterns() string { return strings.Join(f.ignorePaths, "\n") }

// isFile tells whether the published content is a file as it is, not the archive of
// a tree.
func isFile(content *format.Content, o format.Options) bool {
	return content.ChartVersion != "" || o.LayerSelector != nil && o.LayerSelector.Operation == sourcev1.OCILayerCopy
}

// platforms are those that spec.platform takes.
var platforms = regexp.MustCompile(`^[a-z0-9]+/[a-z0-9_]+(/[a-z0-9]+)?$`)

// check refuses settings that no ArtifactRepository could have.
func (f *contentFlags) check() error {
	if err := oneOf("format", f.format, formats()); err != nil {
		return err
	}
	if f.platform != "" && !platforms.MatchString(f.platform) {
		return unexpected("platform", f.platform, "os/architecture, such as linux/arm64")
	}
	if f.layerOperation != "" {
		if err := oneOf("layer-operation", f.layerOperation, layerOperations()); err != nil {
			return err
		}
	}
	if f.layerType != "" {
		if _, _, err := mime.ParseMediaType(f.layerType); err != nil || !strings.Contains(f.layerType, "/") {
			return unexpected("layer-media-type", f.layerType, "a media type such as application/vnd.oci.image.layer.v1.tar+gzip")
		}
	}
	return checkPatterns(f.ignorePaths)
}

// unpacking says where content goes.
type unpacking struct {
	// name is that of a file which is copied as it is.
	name    string
	options format.Options
	// into is where files are written to; nil: they are only listed.
	into *os.Root
}

// unpackContent writes content as consumers get it: the files of a tree, or the
// one file that a chart is.
func unpackContent(ctx context.Context, content *format.Content, u unpacking) (*tree, error) {
	switch {
	case !isFile(content, u.options):
		return readTree(ctx, content.Path, u.into)
	case content.ChartVersion != "":
		return fileTree(ctx, content.Path, u.name+"-"+content.ChartVersion+".tgz", u.into)
	default:
		return fileTree(ctx, content.Path, u.name, u.into)
	}
}
