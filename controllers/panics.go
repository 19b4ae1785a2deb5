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

package controllers

import (
	"context"
	"errors"

	ctrl "sigs.k8s.io/controller-runtime"

	"github.com/image-source/image-source-controller/api/v1alpha1"
	"github.com/image-source/image-source-controller/pkg/fault"
	"github.com/image-source/image-source-controller/pkg/flight"
)

// contained runs a part of a reconcile and turns its panic into an error.
func contained[V any](ctx context.Context, part func(context.Context) (V, error)) (V, error) {
	value, err := flight.Contain(ctx, part)
	return value, panicFault(ctx, err)
}

// panicFault returns the fault to report for an error, and logs the stack if it is a panic.
// A panic is a bug in this program, and no fact about a registry or an image.
func panicFault(ctx context.Context, err error) error {
	panicked, ok := errors.AsType[*flight.PanicError](err)
	if !ok {
		return err
	}
	ctrl.LoggerFrom(ctx).Error(panicked, "a panic ended an attempt", "stack", string(panicked.Stack))
	return fault.Retryf(v1alpha1.ReasonProgressingWithRetry, "%w; this is a bug in this controller, see its log", panicked)
}
