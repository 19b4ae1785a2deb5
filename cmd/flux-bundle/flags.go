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
	"fmt"
	"mime"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/image-source/image-source-controller/pkg/format"
	"github.com/image-source/image-source-controller/pkg/registry"
	"github.com/image-source/image-source-controller/pkg/sign"
)

// What can be said against the value of a flag without any work is said before
// any is done, in these words: what was found, and what was expected.

// unexpected refuses the value of a flag.
func unexpected(flag, value, expected string) error {
	return fmt.Errorf("--%s is %q, expected %s", flag, value, expected)
}

// oneOf refuses a value that is none of those that there are.
func oneOf(flag, value string, all []string) error {
	if slices.Contains(all, value) {
		return nil
	}
	last := len(all) - 1
	return unexpected(flag, value, strings.Join(all[:last], ", ")+" or "+all[last])
}

// once is the value of a flag that takes one: the last of several would win without
// a word. The completion of a shell parses arguments more than once.
type once struct {
	pflag.Value
	given *string
}

var errTwice = errors.New("it is given twice with different values, expected once")

// Set implements pflag.Value.
func (o *once) Set(value string) error {
	if o.given != nil && *o.given != value {
		return errTwice
	}
	o.given = &value
	return o.Value.Set(value)
}

// takeOnce has the flags of a command and of its verbs refuse a second value, but for
// those that take several.
func takeOnce(cmd *cobra.Command) {
	for _, flags := range []*pflag.FlagSet{cmd.PersistentFlags(), cmd.Flags()} {
		flags.VisitAll(func(f *pflag.Flag) {
			_, isWrapped := f.Value.(*once)
			if _, takesSeveral := f.Value.(pflag.SliceValue); !takesSeveral && !isWrapped {
				f.Value = &once{Value: f.Value}
			}
		})
	}
	for _, verb := range cmd.Commands() {
		takeOnce(verb)
	}
}

// readable puts what the flag library says of a value into words for those who
// do not write Go.
func readable(cmd *cobra.Command, err error) error {
	if wrong, ok := errors.AsType[*pflag.InvalidValueError](err); ok {
		if errors.Is(err, errTwice) {
			return fmt.Errorf("--%s: %w", wrong.GetFlag().Name, errTwice)
		}
		if expected := expectedOf(wrong.GetFlag().Value.Type()); expected != "" {
			return unexpected(wrong.GetFlag().Name, wrong.GetValue(), expected)
		}
	}
	if _, ok := errors.AsType[*pflag.NotExistError](err); ok {
		return fmt.Errorf("%w; %s --help lists those that there are", err, cmd.CommandPath())
	}
	return err
}

// expectedOf describes a type of the flag library; empty for what takes any value.
func expectedOf(kind string) string {
	switch kind {
	case "bool":
		return "true or false"
	case "duration":
		return "a time such as 30s or 5m"
	case "int", "int64":
		return "a whole number"
	case "stringSlice":
		return "values with commas between them, and quotes around all of a value or nowhere"
	default:
		return ""
	}
}

// check refuses values that no verb could use.
func (f *globalFlags) check() error {
	if f.provider != "" {
		if err := oneOf("provider", f.provider, providers()); err != nil {
			return err
		}
	}
	if f.timeout <= 0 {
		return unexpected("timeout", f.timeout.String(), "more than nothing")
	}
	for _, limit := range []struct {
		flag  string
		value int64
	}{
		{"max-artifact-bytes", f.limits.ArtifactBytes},
		{"max-uncompressed-bytes", f.limits.UncompressedBytes},
		{"max-entries", int64(f.limits.Entries)},
		{"max-depth", int64(f.limits.Depth)},
		{"max-layers", int64(f.limits.Layers)},
	} {
		if limit.value <= 0 {
			return unexpected(limit.flag, fmt.Sprint(limit.value), "at least 1")
		}
	}
	return nil
}

// networks reads the networks of --registry-allowed-cidrs.
func (f *globalFlags) networks() ([]netip.Prefix, error) {
	all, err := registry.ParseNetworks(f.allowedCIDRs)
	if err != nil {
		return nil, unexpected("registry-allowed-cidrs", strings.Join(f.allowedCIDRs, ","), "networks such as 10.0.0.0/8")
	}
	return all, nil
}

// platforms are those that spec.platform takes.
var platforms = regexp.MustCompile(`^[a-z0-9]+/[a-z0-9_]+(/[a-z0-9]+)?$`)

// check refuses what no ArtifactRepository could say.
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

// checkPatterns refuses patterns that would match nothing because they are none:
// a file that was to be left out would be published.
func checkPatterns(patterns []string) error {
	for _, pattern := range patterns {
		if !format.IsPattern(pattern) {
			return unexpected("ignore-paths", pattern, `a pattern as in .sourceignore: every [ needs its ], and \ something behind it`)
		}
	}
	return nil
}

// check refuses demands that contradict each other.
func (f *demandFlags) check() error {
	keyless := "--certificate-identity and --certificate-oidc-issuer"
	isKeyless := f.identity+f.identityExpression+f.issuer+f.issuerExpression != ""
	isNotation := f.notationPolicy != "" || len(f.notationCertificates) > 0
	switch {
	case f.identity != "" && f.identityExpression != "":
		return contradiction("--certificate-identity", "--certificate-identity-regexp")
	case f.issuer != "" && f.issuerExpression != "":
		return contradiction("--certificate-oidc-issuer", "--certificate-oidc-issuer-regexp")
	case len(f.keys) > 0 && isKeyless:
		return contradiction("--key", keyless)
	case len(f.keys) > 0 && isNotation:
		return contradiction("--key", "--notation-trust-policy")
	case isKeyless && isNotation:
		return contradiction(keyless, "--notation-trust-policy")
	case f.trustedRoot != "" && isNotation:
		return contradiction("--trusted-root", "--notation-trust-policy")
	}
	return nil
}

func contradiction(one, other string) error {
	return fmt.Errorf("give either %s or %s, not both: they are different demands", one, other)
}

// checkLog refuses what is no address of a log, and one that nothing is sent to.
func (p *push) checkLog() error {
	const flag = "rekor-url"
	address, err := url.Parse(p.rekor)
	if err != nil || address.Host == "" || address.Scheme != "https" && address.Scheme != "http" {
		return fmt.Errorf("--%s is no address of a log, expected one such as %s", flag, sign.PublicLog)
	}
	if p.rekor != sign.PublicLog && !p.tlog {
		return fmt.Errorf("--%s says where --tlog records signatures, but --tlog is not given", flag)
	}
	return nil
}

// checkFolder refuses a path at which there can be no folder to write to.
func checkFolder(path string) error {
	folder, err := filepath.Abs(path)
	if err != nil {
		return err
	}
	for folder := range upwardsFrom(folder) {
		switch info, err := os.Stat(folder); {
		case err != nil:
		case !info.IsDir():
			return fmt.Errorf("cannot write to %q: %q is a file, expected a folder", path, folder)
		default:
			return nil
		}
	}
	return nil
}

// checkPrefix refuses what two files cannot be named after.
func checkPrefix(prefix string) error {
	const flag = "output-key-prefix"
	folder, file := filepath.Split(prefix)
	if file == "" {
		return unexpected(flag, prefix, "how the names of two files begin, such as cosign or keys/cosign")
	}
	if folder == "" {
		return nil
	}
	switch info, err := os.Stat(folder); {
	case err != nil:
		return fmt.Errorf("--%s is %q, but there is no folder %q: %w", flag, prefix, folder, pathless(err))
	case !info.IsDir():
		return fmt.Errorf("--%s is %q, but %q is no folder", flag, prefix, folder)
	}
	return nil
}
