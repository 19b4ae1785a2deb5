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

package operator_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-logr/logr/funcr"
	. "github.com/onsi/gomega"
	"k8s.io/client-go/rest"
	ctrl "sigs.k8s.io/controller-runtime"

	"github.com/image-source/image-source-controller/pkg/operator"
	"github.com/image-source/image-source-controller/pkg/serve"
)

func TestAnAPIServerIsAwaitedUntilItAnswers(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		// codes are what it answers, one after the other, and the last for ever;
		// 0 is no answer.
		codes []int
		// asked is how often it has to be.
		asked int64
	}{
		"at once":                               {[]int{200}, 1},
		"after it did not listen":               {[]int{0, 0, 200}, 3},
		"after it was not ready":                {[]int{500, 503, 200}, 3},
		"after it was too busy":                 {[]int{429, 200}, 2},
		"after it knew nobody and no roles":     {[]int{401, 403, 200}, 3},
		"though it never lets itself be asked":  {[]int{403}, 5},
		"though it does not know the path":      {[]int{404}, 1},
		"though it was away before it refused":  {[]int{503, 403}, 6},
		"after it refused between being not up": {[]int{403, 0, 200}, 3},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := NewWithT(t)
			var asked atomic.Int64
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				code := tc.codes[min(int(asked.Add(1)), len(tc.codes))-1]
				if code == 0 {
					panic(http.ErrAbortHandler)
				}
				w.Header().Set("Retry-After", "1") // which is for clients that repeat by themselves
				w.WriteHeader(code)
			}))
			defer server.Close()
			g.Expect(operator.AwaitAPIServer(t.Context(), &rest.Config{Host: server.URL}, func(error) {})).To(Succeed())
			g.Expect(asked.Load()).To(Equal(tc.asked))
		})
	}

	t.Run("though nobody vouches for it", func(t *testing.T) {
		t.Parallel()
		server := httptest.NewTLSServer(http.NotFoundHandler())
		defer server.Close()
		NewWithT(t).Expect(operator.AwaitAPIServer(t.Context(), &rest.Config{Host: server.URL}, func(error) {})).To(Succeed())
	})

	t.Run("or the process is told to end, while it hangs", func(t *testing.T) {
		t.Parallel()
		g := NewWithT(t)
		ctx, cancel := context.WithCancel(t.Context())
		release := make(chan struct{})
		server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
			cancel()
			<-release
		}))
		defer server.Close()
		defer close(release)
		g.Expect(operator.AwaitAPIServer(ctx, &rest.Config{Host: server.URL}, func(error) {})).To(MatchError(context.Canceled))
	})
}

func TestProbesAnswerFromStartToEnd(t *testing.T) {
	t.Parallel()
	g := NewWithT(t)
	var ready atomic.Bool
	probes, err := operator.ListenProbes(t.Context(), "127.0.0.1:0", func(*http.Request) error {
		if !ready.Load() {
			return errors.New("not yet")
		}
		return nil
	})
	g.Expect(err).NotTo(HaveOccurred())
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- probes.Start(ctx) }()
	var body []byte
	code := func(path string) int {
		request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+probes.Listener.Addr().String()+path, http.NoBody)
		g.Expect(err).NotTo(HaveOccurred())
		response, err := (&http.Client{}).Do(request)
		g.Expect(err).NotTo(HaveOccurred())
		body, err = io.ReadAll(response.Body)
		g.Expect(err).NotTo(HaveOccurred())
		g.Expect(response.Body.Close()).To(Succeed())
		return response.StatusCode
	}
	g.Expect(code("/healthz")).To(Equal(http.StatusOK))
	g.Expect(code("/healthz/ping")).To(Equal(http.StatusOK))
	g.Expect(code("/readyz")).To(Equal(http.StatusInternalServerError))
	g.Expect(string(body)).To(ContainSubstring("not yet"))
	ready.Store(true)
	g.Expect(code("/readyz")).To(Equal(http.StatusOK))
	g.Expect(code("/readyz/artifacts")).To(Equal(http.StatusOK))

	_, err = operator.ListenProbes(t.Context(), probes.Listener.Addr().String(), nil)
	var taken *net.OpError
	g.Expect(errors.As(err, &taken)).To(BeTrue(), "somebody listens there: %v", err)

	cancel()
	g.Eventually(ended).WithTimeout(10 * time.Second).Should(Receive(BeNil()))
}

func TestAnAPIServerThatDoesNotKnowTheProcessEndsIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, start := NewWithT(t), time.Now()
		var serving serve.Endpoint
		var told []string
		err := operator.AwaitAPIServer(t.Context(), &rest.Config{Host: "http://192.0.2.1", Transport: answering401{}}, func(why error) {
			serving.Waits(why)
			told = append(told, serving.Ready(nil).Error())
		})
		g.Expect(told).To(HaveEach(And(ContainSubstring("waiting for the API server http://192.0.2.1"), ContainSubstring(": 401 Unauthorized"))), "by /readyz")
		g.Expect(err).To(MatchError(ContainSubstring("does not know this process")))
		g.Expect(time.Since(start)).To(BeNumerically("~", 10*time.Minute, time.Minute))
	})
}

func TestAProcessThatTheAPIServerKnowsNoLongerEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, start := NewWithT(t), time.Now()
		var log lines
		ctx := ctrl.LoggerInto(t.Context(), funcr.New(log.add, funcr.Options{}))
		err := operator.StayKnown(ctx, &rest.Config{Host: "http://192.0.2.1", Transport: answering401{}})
		g.Expect(err).To(MatchError(ContainSubstring("does not know this process")))
		g.Expect(time.Since(start)).To(BeNumerically("~", 11*time.Minute, time.Minute))
		g.Expect(log.said).To(HaveLen(10), "each minute")
	})
}

// A token that is renewed in time ends nothing.
func TestAProcessThatTheAPIServerKnowsAgainGoesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		start := time.Now()
		forgetful := transport(func(request *http.Request) (*http.Response, error) {
			if time.Since(start)%(10*time.Minute) < time.Minute {
				return &http.Response{StatusCode: http.StatusOK, Header: http.Header{}, Body: http.NoBody, Request: request}, nil
			}
			return answering401{}.RoundTrip(request)
		})
		NewWithT(t).Expect(operator.StayKnown(ctx, &rest.Config{Host: "http://192.0.2.1", Transport: forgetful})).To(Succeed())
	})
}

// lines keeps the lines of a log.
type lines struct{ said []string }

func (l *lines) add(_, line string) { l.said = append(l.said, line) }

type transport func(*http.Request) (*http.Response, error)

func (t transport) RoundTrip(request *http.Request) (*http.Response, error) { return t(request) }

// answering401 is an API server that knows nobody.
type answering401 struct{}

func (answering401) RoundTrip(request *http.Request) (*http.Response, error) {
	return &http.Response{
		StatusCode: http.StatusUnauthorized, Header: http.Header{}, Body: http.NoBody, Request: request,
	}, nil
}
