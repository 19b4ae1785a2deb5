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
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/spf13/cobra"

	"github.com/image-source/image-source-controller/api/v1alpha1"
	"github.com/image-source/image-source-controller/pkg/fault"
	"github.com/image-source/image-source-controller/pkg/format"
	"github.com/image-source/image-source-controller/pkg/trust"
)

const inspectLong = `inspect shows an artifact as image-source-controller sees it: its digest, format, media types, annotations and signatures, the files that would be
published with their sizes, and what would be left out or refused, and why. It reads every format that the controller reads.

Files that a program obeys by itself once they are pulled, such as .envrc or those in .github/, are marked; in -o json by runBy.

Signatures are listed with what they say about themselves. Nothing of that is verified: flux bundle verify does.

What the controller would refuse is shown as far as it can be read, with the reason, and the exit code is 1.`

const inspectExample = `  # show what a cluster would get
  flux bundle inspect ghcr.io/org/app-deploy:v1.0.0

  # show the files of a container image, which has to be asked for
  flux bundle inspect ghcr.io/org/app:v1.0.0 --format Image

  # let a CI job check the format and print the digest
  flux bundle inspect ghcr.io/org/app-deploy:v1.0.0 -o json | jq -er 'select(.format == "Flux").digest'`

func newInspect(a *app) *cobra.Command {
	var content contentFlags
	var out output
	cmd := &cobra.Command{
		Use:               "inspect REFERENCE",
		Short:             "Show what an artifact is and what would be published of it",
		Long:              inspectLong,
		Example:           inspectExample,
		Args:              oneReference,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := cmp.Or(out.check(), content.check()); err != nil {
				return err
			}
			return runInspect(cmd.Context(), a, args[0], content.options(a.flags.limits), out)
		},
	}
	content.bind(cmd)
	out.bind(cmd)
	return cmd
}

// runInspect prints the facts about an artifact. The error is the
// reason for which it would not be published.
func runInspect(ctx context.Context, a *app, reference string, o format.Options, out output) error {
	from, err := openOrigin(ctx, a, reference)
	if err != nil {
		return err
	}
	return inScratch(func(scratch string) error {
		o.Report = &format.Report{}
		reading, refusal := from.read(ctx, o, trust.NoDemands{}, scratch)
		if reading.Raw == nil {
			return refusal
		}
		shown := newInspection(reading, o.Report, refusal)
		if err := shown.addFiles(ctx, reading.Content, o); err != nil {
			return err
		}
		shown.addSignatures(ctx, from, reading.Image.Digest)
		return errors.Join(out.print(a.out, shown, shown.text), refusal)
	})
}

// inspection is the result of inspect, with stable names.
type inspection struct {
	Repository string `json:"repository"`
	Tag        string `json:"tag,omitempty"`
	Digest     string `json:"digest"`
	MediaType  string `json:"mediaType"`
	// Format that it is published as; empty when it is refused.
	Format string `json:"format,omitempty"`
	// Kind says what it is in words, also when it is refused.
	Kind         string            `json:"kind,omitempty"`
	ArtifactType string            `json:"artifactType,omitempty"`
	Annotations  map[string]string `json:"annotations,omitempty"`
	// Manifests are those of an index, and Chosen the digest of the one that is
	// read: Config and Layers are of that.
	Manifests []blob      `json:"manifests,omitempty"`
	Chosen    string      `json:"chosen,omitempty"`
	Config    *blob       `json:"config,omitempty"`
	Layers    []blob      `json:"layers,omitempty"`
	Published *published  `json:"published,omitempty"`
	Files     []shownFile `json:"files,omitempty"`
	Omitted   []omission  `json:"omitted,omitempty"`
	// Unlisted is how many more are left out.
	Unlisted int `json:"unlisted,omitempty"`
	// Signatures that were found, none of them verified.
	Signatures []signature `json:"signatures"`
	// SignaturesUnread says why there may be more.
	SignaturesUnread string   `json:"signaturesUnread,omitempty"`
	Refused          *refusal `json:"refused,omitempty"`
}

// blob is what a manifest lists.
type blob struct {
	MediaType   string            `json:"mediaType"`
	Digest      string            `json:"digest"`
	Size        int64             `json:"size"`
	Platform    string            `json:"platform,omitempty"`
	Annotations map[string]string `json:"annotations,omitempty"`
}

// published is the file that consumers would download.
type published struct {
	Revision string `json:"revision"`
	Digest   string `json:"digest"`
	Size     int64  `json:"size"`
	// Verbatim is true when the file is a layer's own bytes.
	Verbatim     bool   `json:"verbatim"`
	ChartVersion string `json:"chartVersion,omitempty"`
}

type omission struct {
	Path  string `json:"path"`
	Cause string `json:"cause"`
}

type signature struct {
	Format string `json:"format,omitempty"`
	// Key is the sha256 of the public key that it hints at.
	Key       string      `json:"key,omitempty"`
	Subject   string      `json:"subject,omitempty"`
	Issuer    string      `json:"issuer,omitempty"`
	Predicate string      `json:"predicate,omitempty"`
	Digests   []string    `json:"digests,omitempty"`
	Times     []time.Time `json:"times,omitempty"`
	Malformed string      `json:"malformed,omitempty"`
}

// refusal is why an artifact would not be published.
type refusal struct {
	Reason  string `json:"reason"`
	Message string `json:"message"`
	// Final is true when only another artifact or other settings can help.
	Final bool `json:"final"`
}

func newInspection(r reading, report *format.Report, err error) *inspection {
	i := &inspection{
		Repository: r.Image.Repository, Tag: r.Image.Tag, Digest: r.Image.Digest.String(),
		MediaType: string(r.Raw.MediaType), Kind: report.Kind, Signatures: []signature{},
	}
	if m := r.Manifest; m != nil {
		i.MediaType, i.ArtifactType, i.Annotations = string(m.MediaType), m.ArtifactType, m.Annotations
		switch {
		case m.Index == nil:
			i.addManifest(m)
		case report.Chosen != nil:
			i.Chosen = report.Chosen.Digest.String()
			i.addManifest(report.Chosen.Manifest)
			fallthrough
		default:
			i.Manifests = blobs(m.Index.Manifests)
		}
	}
	if c := r.Content; c != nil {
		i.Format, i.Annotations = c.Format, c.Annotations
		i.Published = &published{Revision: r.Revision, Digest: c.Digest.String(), Size: c.Size, Verbatim: c.Verbatim, ChartVersion: c.ChartVersion}
	}
	for _, o := range report.Omitted {
		i.Omitted = append(i.Omitted, omission{Path: o.Path, Cause: string(o.Cause)})
	}
	i.Unlisted = report.Unlisted
	slices.SortFunc(i.Omitted, func(a, b omission) int { return cmp.Compare(a.Path, b.Path) })
	if f := fault.Of(err, v1alpha1.ReasonFetchFailed); f != nil {
		i.Refused = &refusal{Reason: f.Reason, Message: oneLine(f.Error()), Final: f.Class == fault.Stall}
	}
	return i
}

func (i *inspection) addManifest(m *format.Manifest) {
	config := blobs([]v1.Descriptor{m.Config})
	i.Config, i.Layers = &config[0], blobs(m.Layers)
}

func blobs(descriptors []v1.Descriptor) []blob {
	all := make([]blob, len(descriptors))
	for i, d := range descriptors {
		all[i] = blob{MediaType: string(d.MediaType), Digest: d.Digest.String(), Size: d.Size, Annotations: d.Annotations}
		if d.Platform != nil {
			all[i].Platform = d.Platform.String()
		}
	}
	return all
}

func (i *inspection) addFiles(ctx context.Context, content *format.Content, o format.Options) error {
	if content == nil || isFile(content, o) && content.ChartVersion == "" {
		return nil
	}
	read := readTree
	if content.ChartVersion != "" {
		read = readChart
	}
	t, err := read(ctx, content.Path, nil)
	if err != nil {
		return err
	}
	for _, f := range t.files {
		if err := ctx.Err(); err != nil {
			return err
		}
		i.Files = append(i.Files, shownOf(f))
	}
	return nil
}

func (i *inspection) addSignatures(ctx context.Context, of origin, digest v1.Hash) {
	found, err := trust.Look(ctx, of.repository, trust.Subject{Repository: of.repository.Name(), Digest: digest})
	for _, s := range found {
		shown := signature{
			Format: string(s.Format), Key: s.Key, Subject: s.Subject, Issuer: s.Issuer,
			Predicate: s.Predicate, Times: s.Times, Malformed: s.Malformed,
		}
		if !slices.Equal(s.Digests, []string{i.Digest}) {
			shown.Digests = s.Digests
		}
		i.Signatures = append(i.Signatures, shown)
	}
	if err != nil {
		i.SignaturesUnread = oneLine(err.Error())
	}
}

// text writes the inspection for a person.
func (i *inspection) text(w io.Writer) error {
	p := &page{}
	p.fieldf("repository", "%s", i.Repository)
	p.fieldf("tag", "%s", i.Tag)
	p.fieldf("digest", "%s", i.Digest)
	p.fieldf("format", "%s", i.formatText())
	if o := i.Published; o != nil {
		how := "archived again"
		if o.Verbatim {
			how = "the layer's own bytes"
		}
		p.fieldf("published", "%s, %s, %s", o.Digest, bytesText(o.Size), how)
		p.fieldf("revision", "%s", o.Revision)
		p.fieldf("version", "%s", o.ChartVersion)
	}
	if i.Refused != nil {
		p.fieldf("refused", "%s", i.Refused.Reason)
	}
	i.manifestText(p)
	i.signaturesText(p)
	i.filesText(p)
	_, err := io.WriteString(w, p.String())
	return err
}

func (i *inspection) formatText() string {
	switch {
	case i.Format == "":
		return i.Kind
	case i.Format == v1alpha1.FormatLayer && i.Kind != "":
		return i.Format + " of " + i.Kind
	default:
		return i.Format
	}
}

func (i *inspection) manifestText(p *page) {
	p.fieldf("manifest", "%s", i.MediaType)
	p.fieldf("type", "%s", i.ArtifactType)
	p.annotationsText("", i.Annotations)
	if len(i.Manifests) > 0 {
		p.linef("manifests:")
		for _, m := range i.Manifests {
			chosen := ""
			if m.Digest == i.Chosen {
				chosen = ", which is read"
			}
			p.linef("  %s, %s%s", cmp.Or(m.Platform, "no platform"), m, chosen)
		}
	}
	if i.Config != nil {
		p.fieldf("config", "%s", i.Config)
	}
	if len(i.Layers) > 0 {
		p.linef("layers:")
	}
	for _, l := range i.Layers {
		p.linef("  %s", l)
		p.annotationsText("    ", l.Annotations)
	}
}

// String describes the blob on one line.
func (b blob) String() string {
	return fmt.Sprintf("%s, %s, %s", b.MediaType, bytesText(b.Size), b.Digest)
}

func (p *page) annotationsText(indent string, annotations map[string]string) {
	if len(annotations) > 0 {
		p.linef("%sannotations:", indent)
	}
	for _, key := range slices.Sorted(maps.Keys(annotations)) {
		p.linef("%s  %s: %s", indent, key, annotations[key])
	}
}

func (i *inspection) signaturesText(p *page) {
	if len(i.Signatures) == 0 {
		p.fieldf("signatures", "none")
	} else {
		p.linef("signatures, not verified:")
	}
	for _, s := range i.Signatures {
		p.linef("  %s", s)
	}
	if i.SignaturesUnread != "" {
		p.linef("  not all could be read: %s", i.SignaturesUnread)
	}
}

// String describes the signature on one line.
func (s signature) String() string {
	if s.Malformed != "" {
		return s.Malformed
	}
	text := s.Format
	switch {
	case s.Subject != "":
		text += fmt.Sprintf(" by %s (issuer %s)", s.Subject, s.Issuer)
	case len(s.Key) == 64: // hexadecimal digits of a sha256
		text += " by key sha256:" + s.Key
	case s.Key != "":
		text += fmt.Sprintf(" by key %q", s.Key)
	}
	if s.Predicate != "" {
		text += fmt.Sprintf(", no signature but of type %q", s.Predicate)
	}
	if len(s.Digests) > 0 {
		text += ", of another image: " + strings.Join(s.Digests, ", ")
	}
	said := []string{text}
	for _, at := range s.Times {
		said = append(said, at.UTC().Format(time.RFC3339))
	}
	return strings.Join(said, ", ")
}

func (i *inspection) filesText(p *page) {
	if len(i.Files) > 0 {
		size := int64(0)
		for _, f := range i.Files {
			size += f.Size
		}
		p.linef("%s, %s together:", counted(len(i.Files), "file"), bytesText(size))
	}
	for _, f := range i.Files {
		mark := ""
		if f.Executable {
			mark = "*"
		}
		if f.RunBy != "" {
			mark += ", which " + f.RunBy + " obeys by itself"
		}
		p.linef("  %9s  %s%s", bytesText(f.Size), f.Path, mark)
	}
	if len(i.Omitted) > 0 {
		p.linef("left out:")
	}
	for _, o := range i.Omitted {
		p.linef("  %s (%s)", o.Path, o.Cause)
	}
	if i.Unlisted > 0 {
		p.linef("  and %d more", i.Unlisted)
	}
}
