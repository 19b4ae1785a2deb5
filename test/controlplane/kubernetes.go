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
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

// FluxNamespace is the namespace that the Flux controllers consider theirs.
const FluxNamespace = "flux-system"

// startEtcd starts etcd and returns the URL for its clients.
func (cp *ControlPlane) startEtcd(ctx context.Context) (url string, err error) {
	data, err := cp.NewDir(Etcd)
	if err != nil {
		return "", err
	}
	_, addresses, err := cp.supervisor.startListening(ctx, 2, func(addresses []string) Program {
		client, peer := "http://"+addresses[0], "http://"+addresses[1]
		return Program{
			Name: Etcd,
			Path: cp.path(Etcd),
			Args: []string{
				"--data-dir=" + data,
				"--listen-client-urls=" + client,
				"--advertise-client-urls=" + client,
				"--listen-peer-urls=" + peer,
				"--initial-advertise-peer-urls=" + peer,
				"--initial-cluster=default=" + peer,
				"--unsafe-no-fsync",
				"--log-level=warn",
			},
			Ready: HTTPReady(client+"/health", nil),
			layer: layerStorage,
		}
	})
	if err != nil {
		return "", err
	}
	return "http://" + addresses[0], nil
}

// startAPIServer starts kube-apiserver on top of etcd and returns how an
// administrator reaches it.
func (cp *ControlPlane) startAPIServer(ctx context.Context, etcd string) (*rest.Config, error) {
	files, err := cp.writeAPIServerFiles()
	if err != nil {
		return nil, fmt.Errorf("preparing kube-apiserver: %w", err)
	}
	config := &rest.Config{
		BearerToken:     files.adminToken,
		TLSClientConfig: rest.TLSClientConfig{CAData: files.authority},
		QPS:             -1, // tests wait for the server, not for themselves
	}
	admin, err := rest.HTTPClientFor(config)
	if err != nil {
		return nil, err
	}
	cp.apiServers = func(ctx context.Context, name string) (*Process, string, error) {
		process, addresses, err := cp.supervisor.startListening(ctx, 1, func(addresses []string) Program {
			return Program{
				Name:  name,
				Path:  cp.path(APIServer),
				Args:  files.arguments(addresses[0], etcd),
				Ready: HTTPReady("https://"+addresses[0]+"/readyz", admin),
				layer: layerAPIServer,
			}
		})
		if err != nil {
			return nil, "", err
		}
		return process, "https://" + addresses[0], nil
	}
	_, config.Host, err = cp.apiServers(ctx, APIServer)
	return config, err
}

// FurtherAPIServer is an API server beside the one that everybody uses.
type FurtherAPIServer struct {
	process *Process
	url     string
}

// StartAPIServer starts a further API server on the same etcd, as there are
// several in a cluster without a single point of failure. It is for who wants
// to take the API server away from one client and from no other. What opens
// the first one opens it too. It ends with the control plane, if not before.
func (cp *ControlPlane) StartAPIServer(ctx context.Context, name string) (*FurtherAPIServer, error) {
	if cp.apiServers == nil {
		return nil, errors.New("this control plane has no Kubernetes")
	}
	process, url, err := cp.apiServers(ctx, name)
	if err != nil {
		return nil, err
	}
	return &FurtherAPIServer{process: process, url: url}, nil
}

// URL returns the address of the API server with its scheme.
func (s *FurtherAPIServer) URL() string { return s.url }

// Stop ends the API server as an operator would.
func (s *FurtherAPIServer) Stop() error { return s.process.Stop() }

// Kill ends the API server at once.
func (s *FurtherAPIServer) Kill() error { return s.process.Kill() }

// Restart ends the API server if it runs and starts it again on the same
// address.
func (s *FurtherAPIServer) Restart(ctx context.Context) error { return s.process.Restart(ctx) }

// apiServerFiles are the files that kube-apiserver reads, and what they hold
// that a client needs.
type apiServerFiles struct {
	dir        string
	adminToken string
	authority  []byte
}

const (
	servingCertFile  = "serving.crt"
	servingKeyFile   = "serving.key"
	accountsKeyFile  = "service-accounts.key"
	staticTokensFile = "tokens.csv"
)

func (cp *ControlPlane) writeAPIServerFiles() (*apiServerFiles, error) {
	dir, err := cp.NewDir(APIServer)
	if err != nil {
		return nil, err
	}
	authority, err := newAuthority("kube-apiserver-ca")
	if err != nil {
		return nil, err
	}
	serving, err := authority.issueServer("kube-apiserver")
	if err != nil {
		return nil, err
	}
	_, accountsKey, err := newKey()
	if err != nil {
		return nil, err
	}
	files := &apiServerFiles{dir: dir, adminToken: rand.Text(), authority: authority.pem}
	return files, writeFiles(dir, map[string][]byte{
		servingCertFile:  serving.cert,
		servingKeyFile:   serving.key,
		accountsKeyFile:  accountsKey,
		staticTokensFile: []byte(files.adminToken + ",admin,admin,system:masters\n"),
	})
}

func (f *apiServerFiles) arguments(address, etcd string) []string {
	host, port, _ := strings.Cut(address, ":")
	return []string{
		"--etcd-servers=" + etcd,
		"--bind-address=" + host,
		"--advertise-address=" + host,
		"--secure-port=" + port,
		"--cert-dir=" + f.dir,
		"--tls-cert-file=" + filepath.Join(f.dir, servingCertFile),
		"--tls-private-key-file=" + filepath.Join(f.dir, servingKeyFile),
		"--token-auth-file=" + filepath.Join(f.dir, staticTokensFile),
		"--service-account-issuer=https://kubernetes.default.svc",
		"--service-account-key-file=" + filepath.Join(f.dir, accountsKeyFile),
		"--service-account-signing-key-file=" + filepath.Join(f.dir, accountsKeyFile),
		"--authorization-mode=RBAC",
		"--disable-admission-plugins=ServiceAccount", // no Pod ever runs
		"--endpoint-reconciler-type=none",
		"--service-cluster-ip-range=10.0.0.0/24",
		"--profiling=false",
	}
}

// startControllerManager starts the parts of kube-controller-manager without
// which nothing is garbage-collected, no namespace ever goes, roles are not
// aggregated and the types in admission policies are not checked.
func (cp *ControlPlane) startControllerManager(ctx context.Context) error {
	data, err := cp.NewDir(ControllerManager)
	if err != nil {
		return err
	}
	loopback, err := clientOfSelfSigned()
	if err != nil {
		return err
	}
	_, _, err = cp.supervisor.startListening(ctx, 1, func(addresses []string) Program {
		host, port, _ := strings.Cut(addresses[0], ":")
		return Program{
			Name: ControllerManager,
			Path: cp.path(ControllerManager),
			Args: []string{
				"--kubeconfig=" + cp.kubeconfig,
				"--controllers=" + strings.Join([]string{
					"garbage-collector-controller", "namespace-controller", "serviceaccount-controller",
					"clusterrole-aggregation-controller", "validatingadmissionpolicy-status-controller",
				}, ","),
				"--bind-address=" + host,
				"--secure-port=" + port,
				"--cert-dir=" + data,
				"--leader-elect=false",
				// Each with its own account, as on a real cluster: admission policies
				// and roles meet them as they are.
				"--use-service-account-credentials=true",
				"--kube-api-qps=200",
				"--kube-api-burst=400",
				"--profiling=false",
			},
			Ready: HTTPReady("https://"+addresses[0]+"/healthz", loopback),
		}
	})
	return err
}

// clientOfSelfSigned returns a client for the health endpoint of a program that
// makes its own certificate.
func clientOfSelfSigned() (*http.Client, error) {
	return rest.HTTPClientFor(&rest.Config{TLSClientConfig: rest.TLSClientConfig{Insecure: true}})
}

// ensureNamespaces makes the namespaces exist that a Flux installation has;
// default appears some time after the API server is ready.
func (cp *ControlPlane) ensureNamespaces(ctx context.Context) error {
	clients, err := kubernetes.NewForConfig(cp.config)
	if err != nil {
		return err
	}
	for _, name := range []string{metav1.NamespaceDefault, FluxNamespace} {
		namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}
		_, err := clients.CoreV1().Namespaces().Create(ctx, namespace, metav1.CreateOptions{})
		if err != nil && !apierrors.IsAlreadyExists(err) {
			return fmt.Errorf("creating the namespace %s: %w", name, err)
		}
	}
	return nil
}

// writeFiles writes files that only this user may read.
func writeFiles(dir string, files map[string][]byte) error {
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			return err
		}
	}
	return nil
}
