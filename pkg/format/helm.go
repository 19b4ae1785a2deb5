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

package format

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"

	"github.com/Masterminds/semver/v3"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"sigs.k8s.io/yaml"

	"github.com/image-source/image-source-controller/pkg/fault"
)

// Media types of https://helm.sh/docs/topics/registries/.
const (
	helmChart types.MediaType = "application/vnd.cncf.helm.chart.content.v1.tar+gzip"
	// helmLegacyChart is what Helm wrote before 3.7 and still reads.
	helmLegacyChart types.MediaType = "application/tar+gzip"
)

// What Helm's loader takes, decompressed (helm.sh/helm/v4/pkg/chart/loader/archive).
const (
	maxChartBytes     = 100 << 20
	maxChartFileBytes = 5 << 20
	// maxChartYAMLBytes is ours: Chart.yaml is decoded in memory.
	maxChartYAMLBytes = 1 << 20

	chartYAML = "Chart.yaml"
)

// readHelm reads an artifact of helm push: a chart, as helm package archived it. It
// publishes the bytes of the chart as they are: helm-controller checks their
// digest and loads them itself. Files that its loader would refuse are refused here.
func readHelm(ctx context.Context, in input) (*Content, error) {
	desc, err := chartLayer(in.Manifest.Layers)
	if err != nil {
		return nil, err
	}
	return publishChart(ctx, in, desc)
}

// chartLayer returns the one layer that is the chart. It may be any of them:
// Helm sorts them by digest. As in Helm's own client the others do not matter.
func chartLayer(layers []v1.Descriptor) (v1.Descriptor, error) {
	charts := pick(layers, func(l v1.Descriptor) bool { return l.MediaType == helmChart || l.MediaType == helmLegacyChart })
	switch len(charts) {
	case 0:
		return v1.Descriptor{}, invalid("the Helm chart has no layer of type %q, only [%s]; push it with helm push", helmChart, layerTypes(layers))
	case 1:
		return charts[0], nil
	default:
		return v1.Descriptor{}, invalid("the Helm chart has %d layers that are charts, and no telling which is meant; push it with one", len(charts))
	}
}

// publishChart checks a chart and publishes its own bytes.
func publishChart(ctx context.Context, in input, desc v1.Descriptor) (*Content, error) {
	l, err := tarball{desc: desc}.open(ctx, in)
	if err != nil {
		return nil, err
	}
	defer l.file.Close()
	l.ofChart = true
	version, err := checkChart(ctx, l)
	if err != nil {
		return nil, err
	}
	content, err := verbatim(ctx, l.file, desc)
	if err != nil {
		return nil, err
	}
	// Helm's loader takes symbolic links for empty files.
	content.ChartVersion, content.SkippedLinks = version, l.links
	return content, nil
}

// checkChart reads all of a chart with the eyes of Helm's loader, but without
// holding it, and returns its version.
func checkChart(ctx context.Context, l *layer) (version string, err error) {
	c := chart{limits: l.limits, folders: map[string]bool{}}
	if err := l.walk(ctx, &amount{}, c.take); err != nil {
		return "", err
	}
	if c.layout != nil {
		return "", c.layout
	}
	if c.metadata == nil {
		return "", invalid("the chart has no %s in its folder; archive it with helm package", chartYAML)
	}
	return readChartVersion(c.metadata)
}

// chart is what is known of a chart while its archive is read. Its paths are
// no tree: Helm keeps a list of files in memory, in which helm package itself
// writes a dependency twice that charts/ has as a folder and as an archive
// (https://github.com/helm/helm/issues/5774).
type chart struct {
	limits Limits
	// files is how many there are, and folders those that they lie in: Helm makes
	// none, but whoever unpacks a chart does.
	files   int
	folders map[string]bool
	// pathBytes is the length of all paths.
	pathBytes int64
	// bytes of all files.
	bytes int64
	// metadata is the content of Chart.yaml.
	metadata []byte
	// layout is what is wrong with the first file in the wrong place. A damaged
	// archive is told first.
	layout error
}

// take checks a file of the chart.
func (c *chart) take(e entry, content io.Reader) error {
	if err := c.index(e); err != nil || e.folder {
		return err
	}
	inside, err := insideChart(e.name)
	c.layout = cmp.Or(c.layout, err)
	read := &io.LimitedReader{R: content, N: maxChartFileBytes + 1}
	switch {
	case inside != chartYAML:
		_, err = io.Copy(io.Discard, read)
	case c.metadata != nil:
		return invalid("the chart has two files that Helm takes for its %s, one of them %s", chartYAML, fault.Quote(e.name))
	default:
		c.metadata, err = io.ReadAll(read)
	}
	if err != nil {
		return err
	}
	if read.N == 0 {
		return tooLarge("the chart's file %s has more than %d bytes, the most that Helm loads; leave it out with .helmignore", fault.Quote(e.name), maxChartFileBytes)
	}
	// Helm refuses a chart that is exactly this large, too.
	if c.bytes += maxChartFileBytes + 1 - read.N; c.bytes >= maxChartBytes {
		return tooLarge("the files of the chart have %d bytes or more together, and Helm loads less than that; leave files out with .helmignore", maxChartBytes)
	}
	return nil
}

// index counts a file or folder, and the folders that it lies in.
func (c *chart) index(e entry) error {
	folder := e.path
	if !e.folder {
		c.files++
		c.pathBytes += int64(len(e.path))
		folder = path.Dir(e.path)
	}
	// The name may be a small part of a large PAX header, which it would keep.
	for folder = strings.Clone(folder); folder != "." && !c.folders[folder]; folder = path.Dir(folder) {
		c.folders[folder] = true
		c.pathBytes += int64(len(folder))
	}
	return c.limits.checkIndex(c.files+len(c.folders), c.pathBytes)
}

// insideChart returns the path of a file without the first element, whatever
// that is called, as Helm's loader does: it does not clean the name before.
func insideChart(name string) (string, error) {
	folder, rest, _ := strings.Cut(name, "/")
	inside := path.Clean(rest)
	switch {
	case folder == chartYAML, inside == ".":
		return "", invalid("the chart has a file that lies in no folder: %s; expected <name>/%s, as helm package archives it", fault.Quote(name), chartYAML)
	case path.IsAbs(rest), strings.HasPrefix(inside, ".."), onDrive(inside):
		return "", invalid("the chart has a path that Helm refuses: %s", fault.Quote(name))
	}
	return inside, nil
}

// onDrive tells whether a path begins with the letter of a drive of Windows.
func onDrive(name string) bool {
	return len(name) > 2 && name[1:3] == ":/" && (('a' <= name[0] && name[0] <= 'z') || ('A' <= name[0] && name[0] <= 'Z'))
}

// readChartVersion returns the version that Chart.yaml names. It refuses
// charts that Helm does not take for valid.
func readChartVersion(body []byte) (string, error) {
	if len(body) > maxChartYAMLBytes {
		return "", tooLarge("the chart's %s has %d bytes, more than the %d that are read", chartYAML, len(body), maxChartYAMLBytes)
	}
	err := checkYAML(body)
	if err == nil {
		err = checkAliases(body)
	}
	if err != nil {
		return "", fmt.Errorf("the chart's %s: %w", chartYAML, err)
	}
	var metadata struct {
		Name    string `json:"name"`
		Version string `json:"version"`
		Type    string `json:"type"`
	}
	if err := yaml.Unmarshal(body, &metadata); err != nil {
		return "", invalid("the chart's %s cannot be decoded: %s", chartYAML, fault.WordsOf(err))
	}
	if name := metadata.Name; name == "" || name == "." || name == ".." || strings.Contains(name, "/") {
		return "", invalid("the chart's %s has no name that Helm takes: %s", chartYAML, fault.Quote(name))
	}
	if _, err := semver.NewVersion(metadata.Version); err != nil {
		return "", invalid("the chart's %s has the version %s, which is no semantic version", chartYAML, fault.Quote(metadata.Version))
	}
	if !slices.Contains([]string{"", "application", "library"}, metadata.Type) {
		return "", invalid("the chart's %s has the type %s, which Helm does not know", chartYAML, fault.Quote(metadata.Type))
	}
	return metadata.Version, nil
}
