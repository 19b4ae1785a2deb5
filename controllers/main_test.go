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

package controllers_test

import (
	"context"
	"flag"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/go-logr/logr"
	. "github.com/onsi/gomega"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	imagev1 "github.com/fluxcd/image-reflector-controller/api/v1"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"

	"github.com/image-source/image-source-controller/api/v1alpha1"
	"github.com/image-source/image-source-controller/test/controlplane"
)

// server is the API server of all tests in this package. It starts at first use: tests of
// pure functions need no server.
var server = &apiServer{}

type apiServer struct {
	once         sync.Once
	controlPlane *controlplane.ControlPlane
	config       *rest.Config
	client       client.WithWatch
	err          error
}

func TestMain(m *testing.M) {
	ctrl.SetLogger(logr.Discard())
	flag.Parse()
	// Tests wait most of their time, so more of them than processors can run.
	if err := flag.Set("test.parallel", "8"); err != nil {
		panic(err)
	}
	m.Run()
	if err := server.controlPlane.Stop(); err != nil {
		panic(err)
	}
}

// start starts the API server, once.
func (s *apiServer) start(ctx context.Context) error {
	s.once.Do(func() { s.err = s.launch(ctx) })
	return s.err
}

// sharedServer is the variable with the API server for the workers of a fuzz test, which are
// separate processes.
const sharedServer = "IMAGE_SOURCE_CONTROLLER_TEST_KUBECONFIG"

func (s *apiServer) launch(ctx context.Context) error {
	if shared := os.Getenv(sharedServer); shared != "" {
		return s.connect(shared)
	}
	if err := s.run(ctx); err != nil {
		return err
	}
	return os.Setenv(sharedServer, s.controlPlane.Kubeconfig())
}

// run starts an API server of its own.
func (s *apiServer) run(ctx context.Context) (err error) {
	s.controlPlane, err = controlplane.Start(ctx, controlplane.Options{
		APIServerOnly: true,
		CRDPaths:      []string{filepath.Join("..", "config", "crd", "bases")},
		Progress:      os.Stderr,
	})
	if err != nil {
		return err
	}
	return s.connect(s.controlPlane.Kubeconfig())
}

// ownServer starts an API server with an empty etcd for one test.
func ownServer(t *testing.T) *apiServer {
	t.Helper()
	g := NewWithT(t)
	own := &apiServer{}
	t.Cleanup(func() { g.Expect(own.controlPlane.Stop()).To(Succeed()) })
	g.Expect(own.run(t.Context())).To(Succeed())
	return own
}

func (s *apiServer) connect(kubeconfig string) (err error) {
	if s.config, err = clientcmd.BuildConfigFromFlags("", kubeconfig); err != nil {
		return err
	}
	s.config.QPS = -1 // tests wait for the server, not for themselves
	s.client, err = client.NewWithWatch(s.config, client.Options{Scheme: scheme()})
	return err
}

func scheme() *runtime.Scheme {
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{
		clientgoscheme.AddToScheme, imagev1.AddToScheme, sourcev1.AddToScheme, v1alpha1.AddToScheme,
	} {
		if err := add(scheme); err != nil {
			panic(err) // two kinds of one name
		}
	}
	return scheme
}
