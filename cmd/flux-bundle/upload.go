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
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/image-source/image-source-controller/api/v1alpha1"
	"github.com/image-source/image-source-controller/pkg/fault"
	"github.com/image-source/image-source-controller/pkg/registry"
	"github.com/image-source/image-source-controller/pkg/sign"
	"github.com/image-source/image-source-controller/pkg/trust"
)

// upload brings an artifact to its tags: uploaded by digest everywhere, then
// signed everywhere, and only then tagged, so that no tag ever leads to what is
// not signed.
type upload struct {
	*app

	artifact *artifact
	// key signs; nil: nobody does.
	key *sign.Key
	// legacy asks for the older format as well.
	legacy bool
	// log is the address of the log to record signatures in; empty: none.
	log string
	// immutable refuses to move a tag.
	immutable bool
	// set counts the tags that lead to the artifact.
	set int
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
	// attached are the signatures of this push, by their form.
	attached map[string]*sign.Attached
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
	is := func(words string) func() string { return func() string { return words } }
	for _, step := range []struct {
		do func(ctx context.Context, d *destination) error
		// unless says how things stand when it fails.
		unless func() string
	}{
		{u.guard, is("nothing was pushed")},
		{u.push, is("no tag was set")},
		{u.sign, is("it is pushed, but not signed, and no tag was set")},
		{u.tag, func() string { return "it is pushed" + u.andSigned() + u.tagged() }},
		{u.keepSigned, is("it is pushed and tagged, but a reader does not find its signature")},
		{u.readBack, func() string { return "it is pushed" + u.andSigned() + u.tagged() }},
	} {
		for _, d := range all {
			if err := step.do(ctx, d); err != nil {
				return fmt.Errorf("%w; %s", err, step.unless())
			}
		}
	}
	return nil
}

// tagged says how things stand when a tag could not be set.
func (u *upload) tagged() string {
	if u.set == 0 {
		return ", but no tag was set"
	}
	return ", but not under all of its tags"
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
	d := &destination{name: repository, attached: map[string]*sign.Attached{}}
	for _, tag := range tags {
		if tag.Context() == repository {
			d.tags = append(d.tags, tag)
		}
	}
	readable, err := u.access(ctx, repository)
	if err != nil {
		return nil, err
	}
	d.access = readable.Writable()
	d.options = []remote.Option{remote.WithTransport(d.access.RoundTripper()), remote.WithUserAgent(userAgent())}
	return d, d.restart(ctx)
}

// restart forgets an earlier failure.
func (d *destination) restart(ctx context.Context) (err error) {
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

// readBack fails where a tag has another digest than the one that was signed:
// because the registry keeps other bytes under it, or because another push moved it.
// A tag that must not move is given time for pushes that looked at it at the same
// time: a registry cannot set a tag under the condition that nobody else has.
func (u *upload) readBack(ctx context.Context, d *destination) error {
	if u.immutable {
		select {
		case <-time.After(time.Until(u.settled)):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return u.eachTag(ctx, d, func(tag name.Tag, found v1.Hash) error {
		ours := u.artifact.manifest
		switch {
		case found == ours.digest:
			return nil
		case found == v1.Hash{}:
			return fmt.Errorf("%s was set to %s, but is gone: somebody removed it at the same time", tag.Name(), ours.digest)
		case d.recoded(ctx, found, ours.body):
			return fmt.Errorf("%s was set to %s, but is %s now: the registry stores the manifest in other bytes, which no signature covers; "+
				"no other push moved the tag", tag.Name(), ours.digest, found)
		default:
			return fmt.Errorf("%s was set to %s, but is %s now: another push moved it at the same time, which %s", tag.Name(), ours.digest, found, u.unprevented())
		}
	})
}

// recoded tells whether a manifest in the registry differs from another in its bytes
// only.
func (d *destination) recoded(ctx context.Context, found v1.Hash, body []byte) bool {
	m, err := d.access.Resolve(ctx, registry.Query{Digest: found})
	if err != nil {
		return false
	}
	var theirs, ours any
	return json.Unmarshal(m.Body, &theirs) == nil && json.Unmarshal(body, &ours) == nil && reflect.DeepEqual(theirs, ours)
}

// unprevented says why another push can move a tag.
func (u *upload) unprevented() string {
	if u.immutable {
		return "--immutable cannot prevent"
	}
	return "a push without --immutable may do"
}

// eachTag calls visit with each tag and its digest, which is empty where there is
// no such tag.
func (u *upload) eachTag(ctx context.Context, d *destination, visit func(tag name.Tag, found v1.Hash) error) error {
	for _, tag := range d.tags {
		found, err := d.access.Digest(ctx, tag.TagStr())
		switch f := fault.Of(err, ""); {
		case err == nil:
			err = visit(tag, found)
		case f.Reason == v1alpha1.ReasonImageNotFound:
			err = visit(tag, v1.Hash{})
		case f.Reason == v1alpha1.ReasonAuthenticationFailed && u.immutable:
			err = fmt.Errorf("cannot tell whether %s exists, which --immutable depends on: %w; "+
				"see that this account may read there, or leave --immutable out", tag.Name(), err)
		case f.Reason == v1alpha1.ReasonAuthenticationFailed: // who may push need not be let read
			u.warnf("cannot tell which digest %s has now: %s", tag.Name(), err)
			err = nil
		}
		if err != nil {
			return err
		}
	}
	return nil
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
	made := u.artifact.manifest
	if _, err := d.access.Resolve(ctx, registry.Query{Digest: made.digest}); err != nil {
		if err := d.access.Put(ctx, made.digest.String(), types.OCIManifestSchema1, made.body); err != nil {
			return d.failed(doing, err)
		}
	}
	err := u.served(ctx, d)
	if err != nil && u.key == nil && fault.Of(err, "").Reason == v1alpha1.ReasonAuthenticationFailed { // who may push need not be let read
		return nil
	}
	return err
}

// served fails where a reader does not get what was pushed: the digest is signed and
// printed.
func (u *upload) served(ctx context.Context, d *destination) error {
	made := u.artifact.manifest
	if _, err := d.access.Resolve(ctx, registry.Query{Digest: made.digest}); err != nil {
		return fmt.Errorf("the registry does not give back the manifest %s that was pushed: %w", made.digest, err)
	}
	if err := d.access.HasBlob(ctx, u.artifact.packed.Digest); err != nil {
		return fmt.Errorf("the registry does not give back the layer that was pushed: %w", err)
	}
	return nil
}

// bring has the layer in a repository. What another one of the same registry got
// before is mounted from there, where registry and account allow that: the
// Distribution Specification calls it mounting a blob from another repository.
// Else it is uploaded.
func (u *upload) bring(ctx context.Context, d *destination) (err error) {
	packed, host := u.artifact.packed, d.name.RegistryStr()
	shown := &progress{streams: u.streams, transfer: upwards, what: layerText(packed.Digest), repository: d.name.Name(), size: packed.Size}
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
	if err := d.restart(ctx); err != nil {
		return err
	}
	return d.pusher.Upload(ctx, d.name, content)
}

// sign signs what was pushed, unless this key has signed it before. What is to
// be recorded in a log is always signed again: nobody can tell from here whether
// the log has it.
func (u *upload) sign(ctx context.Context, d *destination) error {
	subject := d.name.Digest(u.artifact.manifest.digest.String())
	shown := d.name.Name() + "@" + short(u.artifact.manifest.digest)
	for _, as := range u.forms() {
		if u.log == "" && u.signed(ctx, d, as) == nil {
			u.statusf("%s is already signed by this key%s", shown, as.words)
			continue
		}
		var err error
		if d.attached[as.words], err = as.attach(ctx, subject, u.options(d)); err != nil {
			return d.failed("sign "+subject.Name()+as.words, err)
		}
		if err := u.signed(ctx, d, as); err != nil {
			return fmt.Errorf("signed %s%s, but a reader does not find the signature: %w", subject.Name(), as.words, err)
		}
		u.statusf("signed %s%s", shown, as.words)
	}
	return nil
}

// form is a way to sign.
type form struct {
	// words name it in messages.
	words   string
	attach  func(ctx context.Context, subject name.Digest, o sign.Options) (*sign.Attached, error)
	formats []trust.Format
}

// forms are the ways in which to sign; without a key it is an empty list.
func (u *upload) forms() (all []form) {
	if u.key != nil {
		all = append(all, form{attach: u.key.Attach, formats: []trust.Format{trust.BundleReferrer, trust.BundleTag}})
	}
	if u.key != nil && u.legacy {
		all = append(all, form{words: " in the older format", attach: u.key.AttachLegacy, formats: []trust.Format{trust.Legacy}})
	}
	return all
}

func (u *upload) options(d *destination) sign.Options {
	return sign.Options{Remote: d.options, Registry: d.access, Log: u.log}
}

// keepSigned looks for the signatures once more when the tags are set, and writes
// again those that another job which signs the same digest has overwritten.
func (u *upload) keepSigned(ctx context.Context, d *destination) error {
	subject := d.name.Digest(u.artifact.manifest.digest.String())
	for _, as := range u.forms() {
		var err error
		if attached := d.attached[as.words]; attached != nil {
			err = attached.Keep(ctx)
		} else if u.signed(ctx, d, as) != nil {
			_, err = as.attach(ctx, subject, u.options(d))
		}
		if err != nil {
			return d.failed("sign "+subject.Name()+" again"+as.words, err)
		}
		if err := u.signed(ctx, d, as); err != nil {
			return err
		}
	}
	return nil
}

// signed returns nil if there is a signature of a form that the controller would
// accept for the key. It reads as the controller does.
func (u *upload) signed(ctx context.Context, d *destination, as form) error {
	authority, err := trust.NewAuthority(trust.Demand{
		Provider: trust.ProviderCosign,
		Secret:   &trust.Secret{Name: "key", Data: map[string][]byte{"cosign.pub": u.key.PublicKey()}},
		Formats:  as.formats,
	}, trust.Options{})
	if err != nil {
		return err
	}
	_, err = trust.NewRules(d.access, trust.Rule{Name: "key", AnyOf: []trust.Alternative{{Authority: authority}}}).
		Resolved().Verify(ctx, trust.Subject{Repository: d.access.Name(), Digest: u.artifact.manifest.digest})
	return err
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
		if found, err := d.access.Digest(ctx, tag.TagStr()); err == nil && found == u.artifact.manifest.digest {
			u.set++
			u.statusf("%s is %s already", tag.Name(), short(found))
			continue
		}
		if err := d.access.Put(ctx, tag.TagStr(), types.OCIManifestSchema1, u.artifact.manifest.body); err != nil {
			return d.failed("set the tag "+tag.Name(), err)
		}
		u.set++
		u.statusf("%s is %s", tag.Name(), short(u.artifact.manifest.digest))
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

// failed says what could not be done, and why, without the address of a request:
// uploads carry what authorises them in it.
func (d *destination) failed(doing string, err error) error {
	var refusal *transport.Error
	if f, ok := errors.AsType[*fault.Error](err); ok {
		return fmt.Errorf("cannot %s: %w", doing, f)
	}
	// Where plain HTTP may be, a refusal of that hides why HTTPS did not work.
	_, untrusted := errors.AsType[*tls.CertificateVerificationError](err)
	if errors.As(err, &refusal) && !untrusted {
		return fmt.Errorf("cannot %s: %w", doing, answer{refusal: refusal, access: d.access})
	}
	return &failure{words: fmt.Sprintf("cannot %s: %s", doing, d.access.Explain(err)), err: err}
}

// answer is what a registry refuses with, in words for a person.
type answer struct {
	refusal *transport.Error
	access  *registry.Repository
}

func (a answer) Unwrap() error { return a.refusal }

func (a answer) Error() string {
	said := fmt.Sprintf("the registry answers %d %s", a.refusal.StatusCode, http.StatusText(a.refusal.StatusCode))
	if len(a.refusal.Errors) > 0 {
		said += fmt.Sprintf(" (%s)", a.access.Clean(fmt.Sprintf("%s: %s", a.refusal.Errors[0].Code, a.refusal.Errors[0].Message), a.refusal.Request))
	}
	lacks := slices.ContainsFunc(a.refusal.Errors, func(d transport.Diagnostic) bool {
		return d.Code == transport.ManifestBlobUnknownErrorCode || d.Code == transport.BlobUnknownErrorCode
	})
	switch code := a.refusal.StatusCode; {
	case lacks:
		said += "; the registry does not have a blob that was uploaded before: push again"
	case code == http.StatusUnauthorized, code == http.StatusForbidden:
		said += "; log in with docker login or choose a --provider, and see that this account may push there"
	case code == http.StatusRequestEntityTooLarge:
		said += "; the registry, or a proxy in front of it, limits the size of uploads: push less, or raise that limit"
	case code == http.StatusMethodNotAllowed:
		said += "; the address takes no pushes: it may be a mirror, a proxy or no registry"
	case code == http.StatusNotFound:
		said += "; see that the repository exists and that this account may push there"
	}
	return said
}
