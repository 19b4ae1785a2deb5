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
	"bufio"
	"encoding/json"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"

	. "github.com/onsi/gomega"

	"github.com/image-source/image-source-controller/test/publish"
)

// TestAnUntrustedCertificateLeadsToNoPasswordInClear holds that --insecure-registry
// is for registries that speak no TLS: whoever shows a certificate of their own on
// the way gets no login.
func TestAnUntrustedCertificateLeadsToNoPasswordInClear(t *testing.T) {
	plain := serve(t)
	plain.Answer(publish.DemandBasic(map[string]string{"me": "right-password"}))
	secure := httptest.NewUnstartedServer(http.NotFoundHandler())
	secure.Config.ErrorLog = log.New(io.Discard, "", 0)
	secure.StartTLS()
	t.Cleanup(secure.Close)
	door := serveDoor(t, plain.Host(), secure.Listener.Addr().String())
	login, err := json.Marshal(map[string]any{"auths": map[string]any{door: map[string]string{"username": "me", "password": "right-password"}}})
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	t.Setenv("DOCKER_CONFIG", folder(t, map[string]string{"config.json": string(login)}))
	ref := door + "/org/app:v1"
	for name, args := range map[string][]string{
		"push":             {"push", "-f", manifests(t), "-t", ref},
		"push --immutable": {"push", "-f", manifests(t), "-t", ref, "--immutable"},
		"pull":             {"pull", ref, "-o", t.TempDir(), "--force"},
		"inspect":          {"inspect", ref},
	} {
		for _, flags := range [][]string{nil, {"--insecure-registry"}} {
			t.Run(name, func(t *testing.T) {
				g := NewWithT(t)
				run := flux(t, append(args, flags...)...)
				g.Expect(run.code).To(Equal(exitFailure))
				expectOneError(g, run, "certificate")
				g.Expect(plain.Requests()).To(BeEmpty())
			})
		}
	}
}

// serveDoor listens on one port and passes connections on: those for TLS to secure,
// and others to plain.
func serveDoor(t *testing.T, plain, secure string) (host string) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	t.Cleanup(func() { _ = listener.Close() })
	go func() {
		for {
			near, err := listener.Accept()
			if err != nil {
				return
			}
			go pass(near, plain, secure)
		}
	}()
	return listener.Addr().String()
}

func pass(near net.Conn, plain, secure string) {
	defer near.Close()
	buffered := bufio.NewReader(near)
	target := plain
	if first, err := buffered.Peek(1); err == nil && first[0] == 0x16 { // a handshake of TLS
		target = secure
	}
	far, err := net.Dial("tcp", target)
	if err != nil {
		return
	}
	go func() {
		_, _ = io.Copy(far, buffered)
		_ = far.Close()
	}()
	_, _ = io.Copy(near, far)
}
