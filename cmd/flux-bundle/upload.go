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
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"

	"github.com/image-source/image-source-controller/pkg/fault"
	"github.com/image-source/image-source-controller/pkg/registry"
	"github.com/image-source/image-source-controller/pkg/sign"
	"github.com/image-source/image-source-controller/pkg/trust"
)

// upload brings an artifact to its tags: uploaded by digest everywhere, then
// signed everywhere, and only then tagged, so that no tag ever leads to what is
// not signed.
type upload struct {
	app      *app
	artifact *artifact
	// key signs; nil: nobody does.
	key *sign.Key
	// legacy asks for the older format as well.
	legacy bool
	// log is the address of the log to record signatures in; empty: none.
	log string
	// immutable refuses to move a tag.
	immutable bool
	// settled is when the tags of another push that began before ours were set are
	// expected to be set as well.
	settled time.Time
	// lenders are repositories that the layer was brought to, by their registry:
	// others of the same registry can have it from there.
	lenders map[string]name.Repository
}

// destination is a repository to push to.
type destination struct {
	name    name.Repository
	tags    []name.Tag
	access  *registry.Repository
	options []remote.Option
	pusher  *remote.Pusher
}

func (u *upload) run(ctx context.Context, tags []name.Tag) error {
	u.lenders = map[string]name.Repository{}
	var all []*destination
	for _, repository := range repositories(tags) {
		d, err := u.open(ctx, repository, tags)
		if err != nil {
			return err
		}
		all = append(all, d)
	}
	for _, step := range []struct {
		do func(ctx context.Context, d *destination) error
		// unless says how things stand when it fails.
		unless string
	}{
		{u.guard, "nothing was pushed"},
		{u.push, "no tag was set"},
		{u.sign, "it is pushed, but not signed, and no tag was set"},
		{u.tag, "it is pushed" + u.andSigned() + ", but not under all of its tags"},
		{u.readBack, "it is pushed" + u.andSigned() + ", but not under all of its tags"},
	} {
		for _, d := range all {
			if err := step.do(ctx, d); err != nil {
				return fmt.Errorf("%w; %s", err, step.unless)
			}
		}
	}
	return nil
}

func (u *upload) andSigned() string {
	if u.key == nil {
		return ""
	}
	return " and signed"
}

// repositories returns those of tags, each once.
func repositories(tags []name.Tag) []name.Repository {
	var all []name.Repository
	for _, tag := range tags {
		if !slices.Contains(all, tag.Context()) {
			all = append(all, tag.Context())
		}
	}
	return all
}

func (u *upload) open(ctx context.Context, repository name.Repository, tags []name.Tag) (*destination, error) {
	d := &destination{name: repository}
	for _, tag := range tags {
		if tag.Context() == repository {
			d.tags = append(d.tags, tag)
		}
	}
	var err error
	if d.access, err = u.app.access(ctx, repository); err != nil {
		return nil, err
	}
	d.options = []remote.Option{
		remote.WithTransport(d.access.RoundTripper()),
		remote.WithAuth(d.access.Auth()),
		remote.WithUserAgent(programName + "/" + version),
	}
	return d, d.login(ctx)
}

// login forgets what rights were asked for, and begins anew.
func (d *destination) login(ctx context.Context) (err error) {
	d.pusher, err = remote.NewPusher(append(d.options, remote.WithContext(ctx))...)
	return err
}

// guard fails where a tag that must not move has another digest.
func (u *upload) guard(ctx context.Context, d *destination) error {
	if !u.immutable {
		return nil
	}
	return u.eachTag(ctx, d, func(tag name.Tag, found v1.Hash) error {
		if found != (v1.Hash{}) && found != u.artifact.manifest.digest {
			return fmt.Errorf("%s exists as %s, and --immutable forbids to move it to %s", tag.Name(), found, u.artifact.manifest.digest)
		}
		return nil
	})
}

// readBack fails where a tag that must not move was moved by another push that
// looked at the same time as this one. A registry cannot set a tag under the
// condition that nobody else has.
func (u *upload) readBack(ctx context.Context, d *destination) error {
	if !u.immutable {
		return nil
	}
	select {
	case <-time.After(time.Until(u.settled)):
	case <-ctx.Done():
		return ctx.Err()
	}
	return u.eachTag(ctx, d, func(tag name.Tag, found v1.Hash) error {
		ours := u.artifact.manifest.digest
		switch found {
		case ours:
			return nil
		case v1.Hash{}:
			return fmt.Errorf("%s was set to %s, but is gone: somebody removed it at the same time", tag.Name(), ours)
		default:
			return fmt.Errorf("%s was set to %s, but is %s now: another push moved it at the same time, which --immutable cannot prevent", tag.Name(), ours, found)
		}
	})
}

// eachTag calls visit with each tag and its digest, which is empty where there is
// no such tag.
func (u *upload) eachTag(ctx context.Context, d *destination, visit func(tag name.Tag, found v1.Hash) error) error {
	look, err := d.look(ctx)
	if err != nil {
		return d.failed("push to "+d.name.Name(), err)
	}
	for _, tag := range d.tags {
		found, err := remote.Head(tag, look...)
		switch {
		case isAnswer(err, http.StatusNotFound):
			found = &v1.Descriptor{}
		case isAnswer(err, http.StatusForbidden):
			return fmt.Errorf("cannot tell whether %s exists, which --immutable depends on: the registry answers 403 Forbidden; "+
				"see that this account may read there, or leave --immutable out", tag.Name())
		case err != nil:
			return d.failed("look for "+tag.Name(), err)
		}
		if err := visit(tag, found.Digest); err != nil {
			return err
		}
	}
	return nil
}

// look returns options to look for tags with. They ask for the right to push, which
// is needed in any case: registries that create a repository with its first push do
// not tell others that a tag is not there yet.
func (d *destination) look(ctx context.Context) ([]remote.Option, error) {
	patient := transport.NewRetry(d.access.RoundTripper(), transport.WithRetryStatusCodes(http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout))
	loggedIn, err := transport.NewWithContext(ctx, d.name.Registry, d.access.Auth(), patient, []string{d.name.Scope(transport.PushScope)})
	return []remote.Option{remote.WithTransport(loggedIn), remote.WithContext(ctx)}, err
}

// push uploads what is not there, the manifest last.
func (u *upload) push(ctx context.Context, d *destination) error {
	doing := "push to " + d.name.Name()
	if err := u.bring(ctx, d); err != nil {
		return d.failed(doing, err)
	}
	if err := d.pusher.Upload(ctx, d.name, u.artifact.config); err != nil {
		return d.failed(doing, err)
	}
	digest := d.name.Digest(u.artifact.manifest.digest.String())
	if err := d.pusher.Push(ctx, digest, u.artifact.manifest); err != nil {
		return d.failed(doing, err)
	}
	return nil
}

// bring has the layer in a repository. What another one of the same registry got
// before is mounted from there, where registry and account allow that: the
// Distribution Specification calls it mounting a blob from another repository.
// Else it is uploaded.
func (u *upload) bring(ctx context.Context, d *destination) (err error) {
	packed, host := u.artifact.packed, d.name.RegistryStr()
	shown := &progress{app: u.app, transfer: upwards, what: layerText(packed.Digest), repository: d.name.Name(), size: packed.Size}
	defer func() { shown.end(err) }()
	content := &layer{packed: packed, reading: shown.start}
	lender, lent := u.lenders[host]
	if !lent {
		u.lenders[host] = d.name
		return d.pusher.Upload(ctx, d.name, content)
	}
	shown.lender = lender.Name()
	err = d.pusher.Upload(ctx, d.name, &remote.MountableLayer{Layer: content, Reference: lender.Digest(packed.Digest.String())})
	if err == nil || shown.began || ctx.Err() != nil {
		return err
	}
	// Who may push here need not be let in with the wish to read there.
	if err := d.login(ctx); err != nil {
		return err
	}
	return d.pusher.Upload(ctx, d.name, content)
}

// sign signs what was pushed, unless this key has signed it before. What is to
// be recorded in a log is always signed again: nobody can tell from here whether
// the log has it.
func (u *upload) sign(ctx context.Context, d *destination) error {
	if u.key == nil {
		return nil
	}
	subject := d.name.Digest(u.artifact.manifest.digest.String())
	shown := d.name.Name() + "@" + short(u.artifact.manifest.digest)
	o := sign.Options{Remote: d.options, Log: u.log}
	if u.log == "" && u.isSigned(ctx, d) {
		u.app.statusf("%s is already signed by this key", shown)
	} else {
		if err := u.key.Attach(ctx, subject, o); err != nil {
			return d.failed("sign "+subject.Name(), err)
		}
		u.app.statusf("signed %s", shown)
	}
	if !u.legacy {
		return nil
	}
	if err := u.key.AttachLegacy(ctx, subject, o); err != nil {
		return d.failed("sign "+subject.Name()+" in the older format", err)
	}
	u.app.statusf("signed %s in the older format", shown)
	return nil
}

// isSigned tells whether there is a bundle that the controller would accept for
// the key. What cannot be read counts as none: then there is one more.
func (u *upload) isSigned(ctx context.Context, d *destination) bool {
	authority, err := trust.NewAuthority(trust.Demand{
		Provider: trust.ProviderCosign,
		Secret:   &trust.Secret{Name: "key", Data: map[string][]byte{"cosign.pub": u.key.PublicKey()}},
	}, trust.Options{})
	if err != nil {
		return false
	}
	verified, err := trust.NewRules(d.access, trust.Rule{Name: "key", AnyOf: []trust.Alternative{{Authority: authority}}}).
		Resolved().Verify(ctx, trust.Subject{Repository: d.access.Name(), Digest: u.artifact.manifest.digest})
	return err == nil && slices.ContainsFunc(verified.Rulings(), func(r trust.Ruling) bool { return r.Signer.Format != trust.Legacy })
}

// minSettling is how long a push has at least to set its tags after it has looked
// at them, before another one reads back.
const minSettling = 500 * time.Millisecond

// tag sets the tags, once more with a look at those that must not move.
func (u *upload) tag(ctx context.Context, d *destination) error {
	began := time.Now()
	if err := u.guard(ctx, d); err != nil {
		return err
	}
	// Another push is given three times as long as this one takes.
	defer func() {
		if settled := time.Now().Add(max(minSettling, 3*time.Since(began))); settled.After(u.settled) {
			u.settled = settled
		}
	}()
	for _, tag := range d.tags {
		if err := d.pusher.Push(ctx, tag, u.artifact.manifest); err != nil {
			return d.failed("set the tag "+tag.Name(), err)
		}
		u.app.statusf("%s is %s", tag.Name(), short(u.artifact.manifest.digest))
	}
	return nil
}

func annotationsOf(made *artifact) map[string]string {
	m, err := v1.ParseManifest(strings.NewReader(string(made.manifest.body)))
	if err != nil {
		return nil
	}
	return m.Annotations
}

// isAnswer tells whether a registry refused with a status.
func isAnswer(err error, status int) bool {
	var refusal *transport.Error
	return errors.As(err, &refusal) && refusal.StatusCode == status
}

// failed says what could not be done, and why, without the address of a request:
// uploads carry what authorises them in it.
func (d *destination) failed(doing string, err error) error {
	var refusal *transport.Error
	// Where plain HTTP may be, a refusal of that hides why HTTPS did not work.
	_, untrusted := errors.AsType[*tls.CertificateVerificationError](err)
	if errors.As(err, &refusal) && !untrusted {
		return fmt.Errorf("cannot %s: %w", doing, answer{refusal})
	}
	return &failure{words: fmt.Sprintf("cannot %s: %s", doing, d.access.Explain(err)), err: err}
}

// failure is an error that is told in other words than its own.
type failure struct {
	words string
	err   error
}

func (f *failure) Error() string { return f.words }
func (f *failure) Unwrap() error { return f.err }

// answer is what a registry refuses with, in words for a person.
type answer struct{ refusal *transport.Error }

func (a answer) Unwrap() error { return a.refusal }

func (a answer) Error() string {
	said := fmt.Sprintf("the registry answers %d %s", a.refusal.StatusCode, http.StatusText(a.refusal.StatusCode))
	if len(a.refusal.Errors) > 0 {
		said += fmt.Sprintf(" (%s)", fault.Words(fmt.Sprintf("%s: %s", a.refusal.Errors[0].Code, a.refusal.Errors[0].Message)))
	}
	switch a.refusal.StatusCode {
	case http.StatusUnauthorized, http.StatusForbidden:
		said += "; log in with docker login or choose a --provider, and see that this account may push there"
	case http.StatusNotFound:
		said += "; see that the repository exists and that this account may push there"
	}
	return said
}
