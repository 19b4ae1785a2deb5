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
	"net/netip"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"github.com/image-source/image-source-controller/pkg/format"
	"github.com/image-source/image-source-controller/pkg/registry"
)

const (
	credsFlag = "creds"
	// credsVariable replaces --creds: other users of a machine can read arguments, but
	// not the environment.
	credsVariable = "FLUX_BUNDLE_CREDS" //nolint:gosec // a name, and no credentials
)

// globalFlags are the flags that every verb has.
type globalFlags struct {
	insecure     bool
	provider     string
	creds        string
	timeout      time.Duration
	authRealms   []string
	allowedCIDRs []string
	limits       format.Limits
}

// bind adds the flags to a set.
func (f *globalFlags) bind(fs *pflag.FlagSet) {
	f.limits = format.DefaultLimits()
	fs.BoolVar(&f.insecure, "insecure-registry", false, "allow plain HTTP where the registry does not speak HTTPS")
	fs.StringVar(&f.provider, "provider", "generic", "`origin` of registry credentials: generic (Docker config and its helpers), aws, azure or gcp")
	fs.StringVar(&f.creds, credsFlag, "", "`credentials` of the registry: username:password or a token; - reads them from standard input. "+
		"Every process of this machine can read arguments: better set "+credsVariable)
	fs.DurationVar(&f.timeout, "timeout", 5*time.Minute, "time after which to give up")
	fs.StringSliceVar(&f.authRealms, "registry-auth-realms", nil,
		"`hosts` that may be sent registry credentials when a registry names one as its token service, beside its own registrable domain")
	fs.StringSliceVar(&f.allowedCIDRs, "registry-allowed-cidrs", nil, "private `networks` that registries may redirect to")
	fs.Int64Var(&f.limits.ArtifactBytes, "max-artifact-bytes", f.limits.ArtifactBytes, "largest artifact, in `bytes`, as the controller's flag of that name")
	fs.Int64Var(&f.limits.UncompressedBytes, "max-uncompressed-bytes", f.limits.UncompressedBytes, "most `bytes` that an artifact may unpack to, as the controller's flag of that name")
	fs.IntVar(&f.limits.Entries, "max-entries", f.limits.Entries, "most files and folders of an artifact, as the controller's flag of that name")
	fs.IntVar(&f.limits.Depth, "max-depth", f.limits.Depth, "most elements that a path in an artifact may have, as the controller's flag of that name")
	fs.IntVar(&f.limits.Layers, "max-layers", f.limits.Layers, "most layers that an artifact may have, as the controller's flag of that name")
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

// providers are where credentials can come from.
func providers() []string { return []string{"generic", "aws", "azure", "gcp"} }
