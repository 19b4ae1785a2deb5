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
	"bufio"
	"cmp"
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strconv"

	"golang.org/x/crypto/bcrypt"
	"sigs.k8s.io/yaml"
)

// RegistryOptions configure a registry.
type RegistryOptions struct {
	// Name names the registry in errors and its log file; "registry" if empty.
	Name string
	// Username and Password are what clients must present with HTTP basic
	// authentication; anybody may read and write if both are empty.
	Username, Password string
	// TLS makes the registry serve HTTPS with a certificate of a new authority;
	// it serves plain HTTP if nil.
	TLS *RegistryTLS
	// Storage is the directory of the images, which outlives the registry; if
	// empty, the images go with the control plane.
	Storage string
}

// RegistryTLS configures how a registry serves HTTPS.
type RegistryTLS struct {
	// RequireClientCert refuses clients that do not present a certificate of the
	// registry's authority, see [Registry.ClientCertificate].
	RequireClientCert bool
}

// Registry is a running CNCF Distribution.
type Registry struct {
	process   *Process
	host      string
	authority *authority // nil without TLS
	client    keyPair    // zero without TLS
}

// Host returns host and port, the first part of the name of every image in the
// registry.
func (r *Registry) Host() string { return r.host }

// URL returns the address of the registry with its scheme.
func (r *Registry) URL() string {
	if r.authority == nil {
		return "http://" + r.host
	}
	return "https://" + r.host
}

// CA returns the PEM-encoded certificate of the authority that issued the
// certificate of the registry; nil without TLS.
func (r *Registry) CA() []byte {
	if r.authority == nil {
		return nil
	}
	return r.authority.pem
}

// ClientCertificate returns a PEM-encoded certificate, and its key, that the
// registry accepts from clients; nil without TLS.
func (r *Registry) ClientCertificate() (cert, key []byte) {
	return r.client.cert, r.client.key
}

// Transport returns a new transport that trusts the registry and presents the
// client certificate.
func (r *Registry) Transport() (*http.Transport, error) {
	transport := http.DefaultTransport.(*http.Transport).Clone()
	if r.authority == nil {
		return transport, nil
	}
	certificate, err := tls.X509KeyPair(r.client.cert, r.client.key)
	if err != nil {
		return nil, err
	}
	trusted := x509.NewCertPool()
	trusted.AddCert(r.authority.cert)
	transport.TLSClientConfig = &tls.Config{RootCAs: trusted, Certificates: []tls.Certificate{certificate}}
	return transport, nil
}

// Stop ends the registry.
func (r *Registry) Stop() error { return r.process.Stop() }

// Restart ends the registry if it runs and starts it again on the same address,
// with the images that it had.
func (r *Registry) Restart(ctx context.Context) error { return r.process.Restart(ctx) }

// LogFile returns the log of the registry, with a line for every request.
func (r *Registry) LogFile() string { return r.process.LogFile() }

// Request is a request that a registry has answered.
type Request struct {
	Method, Path string
	Status       int
	// UserAgent is how the client names itself.
	UserAgent string
}

// accessLine matches a line of the access log about the API of the registry. The
// log is in Apache's combined format, with other lines in between.
var accessLine = regexp.MustCompile(`^\S+ \S+ \S+ \[[^]]+\] "([A-Z]+) (/v2/\S*) HTTP/[0-9.]+" ([0-9]{3}) \S+ "[^"]*" "([^"]*)"`)

// Requests returns the requests to its API that the registry has answered so
// far, as its access log has them. The registry writes a line after it has answered.
func (r *Registry) Requests() ([]Request, error) {
	requests, _, err := r.RequestsSince(0)
	return requests, err
}

// RequestsSince returns the requests in the access log from an offset on, and
// the offset at which the next ones begin.
func (r *Registry) RequestsSince(offset int64) (requests []Request, next int64, err error) {
	log, err := os.Open(r.LogFile())
	if err != nil {
		return nil, 0, err
	}
	defer log.Close()
	if _, err := log.Seek(offset, io.SeekStart); err != nil {
		return nil, 0, err
	}
	lines := bufio.NewReader(log)
	for next = offset; ; {
		line, err := lines.ReadString('\n')
		if errors.Is(err, io.EOF) { // what is not a line yet is read the next time
			return requests, next, nil
		}
		if err != nil {
			return nil, 0, err
		}
		next += int64(len(line))
		if match := accessLine.FindStringSubmatch(line); match != nil {
			status, _ := strconv.Atoi(match[3])
			requests = append(requests, Request{Method: match[1], Path: match[2], Status: status, UserAgent: match[4]})
		}
	}
}

// StartRegistry starts a further registry. It ends with the control plane, if
// not before.
func (cp *ControlPlane) StartRegistry(ctx context.Context, options RegistryOptions) (*Registry, error) {
	if err := cp.ensureBuilt(ctx, DistributionRegistry); err != nil {
		return nil, err
	}
	if options.Name == "" {
		options.Name = DistributionRegistry
	}
	dir, err := cp.NewDir(options.Name)
	if err != nil {
		return nil, err
	}
	registry, err := prepareRegistry(dir, options)
	if err != nil {
		return nil, fmt.Errorf("preparing %s: %w", options.Name, err)
	}
	client, err := registry.Transport()
	if err != nil {
		return nil, err
	}
	registry.process, _, err = cp.supervisor.startListening(ctx, 1, func(addresses []string) Program {
		registry.host = addresses[0]
		return Program{
			Name:  options.Name,
			Path:  cp.path(DistributionRegistry),
			Args:  []string{"serve", filepath.Join(dir, registryConfigFile)},
			Env:   []string{"REGISTRY_HTTP_ADDR=" + registry.host, "OTEL_TRACES_EXPORTER=none"},
			Ready: HTTPReady(registry.URL()+"/", &http.Client{Transport: client}),
		}
	})
	if err != nil {
		return nil, err
	}
	return registry, nil
}

const (
	registryConfigFile  = "config.yml"
	passwordsFile       = "htpasswd"
	registryCertFile    = "serving.crt"
	registryKeyFile     = "serving.key"
	registryClientsFile = "clients-ca.crt"
)

// prepareRegistry writes the files that a registry reads into dir.
func prepareRegistry(dir string, options RegistryOptions) (*Registry, error) {
	registry := &Registry{}
	config, err := yaml.Marshal(registryConfig(dir, options))
	if err != nil {
		return nil, err
	}
	files := map[string][]byte{registryConfigFile: config}
	if options.authenticates() {
		if files[passwordsFile], err = passwordLine(options); err != nil {
			return nil, err
		}
	}
	if options.TLS != nil {
		serving, err := registry.issueCertificates(options.Name)
		if err != nil {
			return nil, err
		}
		files[registryCertFile], files[registryKeyFile] = serving.cert, serving.key
		files[registryClientsFile] = registry.authority.pem
	}
	return registry, writeFiles(dir, files)
}

// issueCertificates makes the authority of the registry, the client certificate
// and the one that the registry serves with, which it returns.
func (r *Registry) issueCertificates(name string) (serving keyPair, err error) {
	if r.authority, err = newAuthority(name + "-ca"); err != nil {
		return keyPair{}, err
	}
	if r.client, err = r.authority.issueClient(name + "-client"); err != nil {
		return keyPair{}, err
	}
	return r.authority.issueServer(name)
}

// registryConfig returns the configuration of CNCF Distribution, but for the
// address, which is not known before the start.
func registryConfig(dir string, options RegistryOptions) map[string]any {
	config := map[string]any{
		"version": "0.1",
		"log":     map[string]any{"level": "info"},
		"storage": map[string]any{
			"filesystem": map[string]any{"rootdirectory": cmp.Or(options.Storage, filepath.Join(dir, "images"))},
			"delete":     map[string]any{"enabled": true},
		},
	}
	if options.authenticates() {
		config["auth"] = map[string]any{"htpasswd": map[string]any{
			"realm": options.Name,
			"path":  filepath.Join(dir, passwordsFile),
		}}
	}
	server := map[string]any{"secret": rand.Text()}
	if options.TLS != nil {
		server["tls"] = registryTLSConfig(dir, options.TLS)
	}
	config["http"] = server
	return config
}

func registryTLSConfig(dir string, options *RegistryTLS) map[string]any {
	config := map[string]any{
		"certificate": filepath.Join(dir, registryCertFile),
		"key":         filepath.Join(dir, registryKeyFile),
	}
	if options.RequireClientCert {
		config["clientcas"] = []string{filepath.Join(dir, registryClientsFile)}
		config["clientauth"] = "require-and-verify-client-cert"
	}
	return config
}

func (o RegistryOptions) authenticates() bool {
	return o.Username != "" || o.Password != ""
}

// passwordLine returns the line of an htpasswd file for the user of a registry.
func passwordLine(options RegistryOptions) ([]byte, error) {
	hash, err := bcrypt.GenerateFromPassword([]byte(options.Password), bcrypt.MinCost)
	if err != nil {
		return nil, fmt.Errorf("hashing the password of %s: %w", options.Username, err)
	}
	return fmt.Appendf(nil, "%s:%s\n", options.Username, hash), nil
}
