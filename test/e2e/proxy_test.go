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

package e2e

import (
	"bufio"
	"encoding/base64"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"sync/atomic"
	"testing"
)

// forwardProxy is an HTTP proxy that asks for credentials. Whatever address it
// is asked for, it takes its clients to one registry, so an image whose host
// nobody can reach is there for those who use the proxy and for nobody else.
type forwardProxy struct {
	*httptest.Server
	registry           string
	username, password string
	// tunnels and forwards count what was let through, refused what was not.
	tunnels, forwards, refused atomic.Int64
}

func newForwardProxy(t *testing.T, registry string) *forwardProxy {
	t.Helper()
	p := &forwardProxy{registry: registry, username: "proxy-user", password: "proxy-password-7d1f"}
	p.Server = httptest.NewServer(p)
	t.Cleanup(p.Close)
	return p
}

func (p *forwardProxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	want := "Basic " + base64.StdEncoding.EncodeToString([]byte(p.username+":"+p.password))
	if r.Header.Get("Proxy-Authorization") != want {
		p.refused.Add(1)
		w.Header().Set("Proxy-Authenticate", `Basic realm="proxy"`)
		http.Error(w, "who are you?", http.StatusProxyAuthRequired)
		return
	}
	if r.Method == http.MethodConnect {
		p.tunnels.Add(1)
		p.tunnel(w)
		return
	}
	p.forwards.Add(1)
	(&httputil.ReverseProxy{Rewrite: func(out *httputil.ProxyRequest) {
		out.SetURL(&url.URL{Scheme: "http", Host: p.registry})
		out.Out.Header.Del("Proxy-Authorization")
	}}).ServeHTTP(w, r)
}

// tunnel connects a client to the registry until either of them hangs up.
func (p *forwardProxy) tunnel(w http.ResponseWriter) {
	there, err := net.Dial("tcp", p.registry)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	defer there.Close()
	here, buffered, err := w.(http.Hijacker).Hijack()
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	defer here.Close()
	if _, err := io.WriteString(here, "HTTP/1.1 200 Connection established\r\n\r\n"); err != nil {
		return
	}
	go p.carry(there, buffered.Reader)
	_, _ = io.Copy(here, there) // ends when either side does
}

func (*forwardProxy) carry(there net.Conn, here *bufio.Reader) {
	_, _ = io.Copy(there, here)
	there.Close()
}
