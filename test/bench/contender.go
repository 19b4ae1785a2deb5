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
	"fmt"
	"os"
	"path/filepath"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/fluxcd/pkg/apis/meta"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"

	"github.com/image-source/image-source-controller/api/v1alpha1"
	"github.com/image-source/image-source-controller/test/controlplane"
	"github.com/image-source/image-source-controller/test/stage"
)

// source is what a controller is asked to publish.
type source struct {
	// name is that of the object, of the repository and of what is published.
	name string
	// repository is without the host.
	repository string
	tag        string
	interval   time.Duration
	// key names the Secret with the public key that must have signed; empty for
	// no verification.
	key string
	// format pins how ours reads it; empty to detect it.
	format string
}

// contender is a controller that is measured.
type contender interface {
	// String is its name.
	String() string
	// launch starts it in a process of its own, with empty storage.
	launch(ctx context.Context, s *stage.Stage, name string, flags []string) (*process, error)
	// object is the object that asks for a source.
	object(registry string, s source) client.Object
	// retag changes the tag in such an object.
	retag(obj client.Object, tag string)
	// requests lists the objects that ask for sources.
	requests() client.ObjectList
	// publications lists what consumers see.
	publications() client.ObjectList
	// artifact is what consumers see of one of them; nil if nothing yet.
	artifact(obj client.Object) *meta.Artifact
}

// process is a controller that runs.
type process struct {
	*controlplane.Process
	metrics string // host and port
	storage string
}

// end ends the process and removes what it stored.
func (p *process) end() error {
	if err := p.Stop(); err != nil {
		return err
	}
	return os.RemoveAll(p.storage)
}

// restartEmpty ends the process and starts it again with nothing in its storage.
func (p *process) restartEmpty(ctx context.Context) error {
	if err := p.end(); err != nil {
		return err
	}
	if err := os.MkdirAll(p.storage, 0o750); err != nil {
		return err
	}
	return p.Restart(ctx)
}

// contenders are those that are measured; ours first.
func contenders() [2]contender { return [2]contender{ours{}, theirs{}} }

// ours is image-source-controller.
type ours struct {
	program string // that of the stage if empty
}

func (ours) String() string { return "image-source-controller" }

func (o ours) launch(ctx context.Context, s *stage.Stage, name string, flags []string) (*process, error) {
	c, err := s.StartController(ctx, stage.ControllerOptions{Name: name, Binary: o.program, Args: append([]string{"--log-encoding=json"}, flags...)})
	if err != nil {
		return nil, err
	}
	return &process{Process: c.Process, metrics: c.Metrics, storage: c.StorageDir}, nil
}

func (ours) object(registry string, s source) client.Object {
	obj := &v1alpha1.ArtifactRepository{ObjectMeta: metav1.ObjectMeta{Name: s.name}}
	obj.Spec.Image = registry + "/" + s.repository
	obj.Spec.Tag = s.tag
	obj.Spec.Insecure = true
	obj.Spec.Interval = &metav1.Duration{Duration: s.interval}
	obj.Spec.Timeout = &metav1.Duration{Duration: patience}
	obj.Spec.Verify = verification(s.key)
	obj.Spec.Format = s.format
	return obj
}

func (ours) retag(obj client.Object, tag string) { obj.(*v1alpha1.ArtifactRepository).Spec.Tag = tag }

func (ours) requests() client.ObjectList { return &v1alpha1.ArtifactRepositoryList{} }

func (ours) publications() client.ObjectList { return &sourcev1.ExternalArtifactList{} }

func (ours) artifact(obj client.Object) *meta.Artifact {
	return obj.(*sourcev1.ExternalArtifact).Status.Artifact
}

// theirs is source-controller.
type theirs struct{}

func (theirs) String() string { return controlplane.SourceController }

func (theirs) launch(ctx context.Context, s *stage.Stage, name string, flags []string) (*process, error) {
	program, err := controlplane.Executable(ctx, controlplane.SourceController)
	if err != nil {
		return nil, err
	}
	p := &process{storage: filepath.Join(s.Dir, name)}
	temporary := filepath.Join(p.storage, "tmp")
	if err := os.MkdirAll(temporary, 0o750); err != nil {
		return nil, err
	}
	var addresses [3]string
	for i := range addresses {
		if addresses[i], err = controlplane.FreeAddress(); err != nil {
			return nil, err
		}
	}
	artifacts, health := addresses[0], addresses[1]
	p.metrics = addresses[2]
	p.Process, err = s.StartProgram(ctx, controlplane.Program{
		Name: name,
		Path: program,
		Args: append([]string{
			"--storage-path=" + p.storage, "--storage-addr=" + artifacts, "--storage-adv-addr=" + artifacts,
			"--metrics-addr=" + p.metrics, "--health-addr=" + health,
		}, flags...),
		Env:   []string{"KUBECONFIG=" + s.Kubeconfig(), "RUNTIME_NAMESPACE=" + controlplane.FluxNamespace, "TMPDIR=" + temporary},
		Ready: controlplane.HTTPReady("http://"+health+"/readyz", nil),
	})
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	return p, nil
}

func (theirs) object(registry string, s source) client.Object {
	obj := &sourcev1.OCIRepository{ObjectMeta: metav1.ObjectMeta{Name: s.name}}
	obj.Spec.URL = sourcev1.OCIRepositoryPrefix + registry + "/" + s.repository
	obj.Spec.Reference = &sourcev1.OCIRepositoryRef{Tag: s.tag}
	obj.Spec.Insecure = true
	obj.Spec.Interval.Duration = s.interval
	obj.Spec.Timeout = &metav1.Duration{Duration: patience}
	obj.Spec.Verify = verification(s.key)
	return obj
}

func (theirs) retag(obj client.Object, tag string) {
	obj.(*sourcev1.OCIRepository).Spec.Reference.Tag = tag
}

func (theirs) requests() client.ObjectList { return &sourcev1.OCIRepositoryList{} }

func (theirs) publications() client.ObjectList { return &sourcev1.OCIRepositoryList{} }

func (theirs) artifact(obj client.Object) *meta.Artifact {
	return obj.(*sourcev1.OCIRepository).Status.Artifact
}

func verification(key string) *sourcev1.OCIRepositoryVerification {
	if key == "" {
		return nil
	}
	return &sourcev1.OCIRepositoryVerification{Provider: "cosign", SecretRef: &meta.LocalObjectReference{Name: key}}
}
