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

package operator

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	"github.com/spf13/pflag"
	flowcontrolapi "k8s.io/api/flowcontrol/v1"

	fluxclient "github.com/fluxcd/pkg/runtime/client"

	"github.com/image-source/image-source-controller/pkg/serve"
)

// configure has the process find an API server by a kubeconfig.
func configure(t *testing.T, answer http.HandlerFunc) {
	t.Helper()
	server := httptest.NewServer(answer)
	t.Cleanup(server.Close)
	path := filepath.Join(t.TempDir(), "kubeconfig")
	config := fmt.Sprintf("apiVersion: v1\nkind: Config\ncurrent-context: a\nclusters: [{name: a, cluster: {server: %q}}]\n"+
		"contexts: [{name: a, context: {cluster: a}}]\n", server.URL)
	NewWithT(t).Expect(os.WriteFile(path, []byte(config), 0o600)).To(Succeed())
	t.Setenv("KUBECONFIG", path)
}

func TestAnAPIServerIsAskedOnlyWhenItIsReady(t *testing.T) {
	g := NewWithT(t)
	var looked atomic.Int64
	configure(t, func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path == "/readyz" && looked.Add(1) > 1:
		case looked.Load() > 1:
			w.Header().Set(flowcontrolapi.ResponseHeaderMatchedFlowSchemaUID, "any")
		default:
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	})
	config, err := connect(t.Context(), fluxclient.Options{QPS: 5, Burst: 10}, &serve.Endpoint{})
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(config.QPS).To(BeNumerically("<", 0), "it limits requests by itself, and has not been ready at once")
}

func TestAnAPIServerThatHangsIsNotWaitedForAtTheEnd(t *testing.T) {
	g := NewWithT(t)
	ctx, cancel := context.WithCancel(t.Context())
	release := make(chan struct{})
	configure(t, func(_ http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/readyz" {
			cancel()
			<-release
		}
	})
	t.Cleanup(func() { close(release) })
	ended := make(chan error, 1)
	go func() {
		_, err := connect(ctx, fluxclient.Options{}, &serve.Endpoint{})
		ended <- err
	}()
	g.Eventually(ended).WithTimeout(30 * time.Second).Should(Receive(MatchError(context.Canceled)))
}

func TestLimitsThatAdmitNothingAreRefused(t *testing.T) {
	t.Setenv("RUNTIME_NAMESPACE", "flux-system")
	for _, flag := range []string{"max-artifact-bytes", "max-uncompressed-bytes", "max-entries", "max-depth", "max-layers"} {
		for _, value := range []string{"0", "-1"} {
			g := NewWithT(t)
			o, fs := &Options{}, pflag.NewFlagSet("", pflag.ContinueOnError)
			o.BindFlags(fs)
			g.Expect(fs.Parse([]string{"--storage-adv-addr=localhost", "--" + flag + "=" + value})).To(Succeed())
			g.Expect(o.prepare()).To(MatchError(HavePrefix("--" + flag + " is " + value + ": expected at least 1")))
		}
	}
}
