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
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/discovery"
	restclient "k8s.io/client-go/rest"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/healthz"
	"sigs.k8s.io/controller-runtime/pkg/manager"

	"github.com/image-source/image-source-controller/pkg/fault"
)

// ListenProbes returns the server of the probes of a Pod at an address: /healthz,
// that the process lives, and /readyz, whether it is ready, and why not. It is no part of the
// manager, because it has to answer before that is made, while the API server is
// waited for, and after it has ended, while consumers are still served. It listens
// from now on and answers from its start.
func ListenProbes(ctx context.Context, address string, ready healthz.Checker) (*manager.Server, error) {
	const (
		headerTimeout   = 30 * time.Second
		idleTimeout     = 90 * time.Second
		shutdownTimeout = time.Second
	)
	mux := http.NewServeMux()
	alive := http.StripPrefix("/healthz", &healthz.Handler{Checks: map[string]healthz.Checker{"ping": healthz.Ping}})
	mux.Handle("/healthz", alive)
	mux.Handle("/healthz/", alive)
	// The handler of several checks withholds their reasons.
	for _, path := range []string{"/readyz", "/readyz/artifacts"} {
		mux.Handle(path, healthz.CheckHandler{Checker: ready})
	}
	var listening net.ListenConfig
	listener, err := listening.Listen(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	return &manager.Server{
		Name:            "probes",
		Server:          &http.Server{Handler: mux, ReadHeaderTimeout: headerTimeout, IdleTimeout: idleTimeout},
		Listener:        listener,
		ShutdownTimeout: new(shutdownTimeout),
	}, nil
}

const (
	// answerTimeout is what the API server gets to say that it is ready.
	answerTimeout = 5 * time.Second
	// tellEvery is how often it is said that the API server is waited for.
	tellEvery = time.Minute
	// maxRefusals is how often in a row an API server may refuse to say whether it
	// is ready. One that has just started refuses everything for some seconds, until
	// it has read who may do what; one that goes on to, answers for the rest.
	maxRefusals = 5
	// maxStranger is how long an API server may answer that it does not know this process:
	// a token that is not accepted does not get better, and a new process has a new one.
	maxStranger = 10 * time.Minute
)

// AwaitAPIServer returns when the API server is ready, or ctx has ended, with its
// error, or with one when the API server does not know this process for maxStranger. A
// process that ended instead would be started again after pauses that grow to minutes,
// and be away for as long after the API server is back. It tells why it waits after each
// attempt, and nil at the end.
//
// It waits for an answer and judges none: what is wrong with the rights, the
// certificates or the kinds is for those to say who ask next.
func AwaitAPIServer(ctx context.Context, config *restclient.Config, tell func(why error)) error {
	server, err := newAPIServer(config)
	if err != nil {
		return err
	}
	log := ctrl.LoggerFrom(ctx)
	var told time.Time
	refusals := 0
	pauses := wait.Backoff{Duration: 500 * time.Millisecond, Factor: 2, Jitter: 0.2, Steps: 10, Cap: 10 * time.Second}
	return pauses.DelayFunc().Until(ctx, true, true, func(ctx context.Context) (bool, error) {
		err, final := server.ask(ctx)
		if final != nil {
			return false, final
		}
		if apierrors.IsForbidden(err) {
			refusals++
		} else {
			refusals = 0
		}
		if !isAway(err) || refusals == maxRefusals {
			if !told.IsZero() {
				log.Info("the API server answers")
			}
			tell(nil)
			return true, nil
		}
		tell(fmt.Errorf("waiting for the API server %s: %s", config.Host, words(err)))
		if ctx.Err() == nil && time.Since(told) >= tellEvery {
			told = time.Now()
			log.Info("waiting for the API server", "host", config.Host, "error", words(err))
		}
		return false, nil
	})
}

// words are those of an error of the API server. The library has no code in the words for 401.
func words(err error) string {
	said := fault.Line(err.Error())
	if apierrors.IsUnauthorized(err) {
		return "401 Unauthorized: " + said
	}
	return said
}

// apiServer is the API server, which is asked whether it is ready.
type apiServer struct {
	client *discovery.DiscoveryClient
	host   string
	// stranger is since when it answers that it does not know this process; zero if it does.
	stranger time.Time
}

func newAPIServer(config *restclient.Config) (*apiServer, error) {
	client, err := discovery.NewDiscoveryClientForConfig(config)
	return &apiServer{client: client, host: config.Host}, err
}

// ask returns why the API server is not ready. It is final that the API server has not
// known this process for maxStranger.
func (a *apiServer) ask(ctx context.Context) (answer, final error) {
	ctx, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	answer = a.client.RESTClient().Get().AbsPath("/readyz").MaxRetries(0).Do(ctx).Error()
	switch {
	case !apierrors.IsUnauthorized(answer):
		a.stranger = time.Time{}
	case a.stranger.IsZero():
		a.stranger = time.Now()
	case time.Since(a.stranger) >= maxStranger:
		final = fmt.Errorf("the API server %s does not know this process since %s: %w", a.host, maxStranger, answer)
	}
	return answer, final
}

// StayKnown asks the API server each minute, until ctx ends, whether it knows this
// process. It returns an error when the answer was 401 for maxStranger: the caches of a
// process that nobody knows see nothing new, and their retries do not end.
func StayKnown(ctx context.Context, config *restclient.Config) error {
	server, err := newAPIServer(config)
	if err != nil {
		return err
	}
	err = wait.PollUntilContextCancel(ctx, tellEvery, false, func(ctx context.Context) (bool, error) {
		err, final := server.ask(ctx)
		if final == nil && !server.stranger.IsZero() {
			ctrl.LoggerFrom(ctx).Info("the API server does not know this process, which ends when that lasts",
				"host", config.Host, "for", time.Since(server.stranger).Round(time.Second).String(), "most", maxStranger.String(), "error", words(err))
		}
		return false, final
	})
	return unlessEnded(ctx, err)
}

// unlessEnded is no error when the process was told to end.
func unlessEnded(ctx context.Context, err error) error {
	if ctx.Err() == nil {
		return err
	}
	return nil
}

// isAway tells whether an answer, or that there is none, means that the API
// server cannot do its work yet. While it cannot read ServiceAccounts and roles, it
// knows nobody and allows nothing.
func isAway(err error) bool {
	if answer := apierrors.APIStatus(nil); errors.As(err, &answer) {
		code := answer.Status().Code
		return code >= http.StatusInternalServerError || code == http.StatusTooManyRequests ||
			code == http.StatusUnauthorized || code == http.StatusForbidden
	}
	_, untrusted := errors.AsType[*tls.CertificateVerificationError](err)
	return err != nil && !untrusted
}
