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
	"k8s.io/client-go/util/workqueue"
	ctrl "sigs.k8s.io/controller-runtime"
)

// newQueue returns the queue of a controller, in which namespaces take turns. The queue of
// the library has priorities instead: objects from the start come last, so a tenant with
// busy sources could keep them waiting for ever.
func newQueue(name string, limiter workqueue.TypedRateLimiter[ctrl.Request]) workqueue.TypedRateLimitingInterface[ctrl.Request] {
	inTurn := workqueue.NewTypedWithConfig(workqueue.TypedQueueConfig[ctrl.Request]{Name: name, Queue: &turns{}})
	return workqueue.NewTypedRateLimitingQueueWithConfig(limiter, workqueue.TypedRateLimitingQueueConfig[ctrl.Request]{
		Name:          name,
		DelayingQueue: workqueue.NewTypedDelayingQueueWithConfig(workqueue.TypedDelayingQueueConfig[ctrl.Request]{Name: name, Queue: inTurn}),
	})
}

// turns has requests in the order of their work: the namespaces with requests in turn, and
// those of one namespace first in, first out. Others wait for only one request of a
// namespace at a time, however many it has. Its zero value is ready to use, by one goroutine
// at a time.
type turns struct {
	lines map[string][]ctrl.Request
	// order has the namespaces with a line.
	order []string
	count int
}

var _ workqueue.Queue[ctrl.Request] = (*turns)(nil)

// Push implements workqueue.Queue.
func (t *turns) Push(request ctrl.Request) {
	if t.lines == nil {
		t.lines = map[string][]ctrl.Request{}
	}
	line := t.lines[request.Namespace]
	if len(line) == 0 {
		t.order = append(t.order, request.Namespace)
	}
	t.lines[request.Namespace] = append(line, request)
	t.count++
}

// Pop implements workqueue.Queue.
func (t *turns) Pop() ctrl.Request {
	namespace := t.order[0]
	t.order = t.order[1:]
	line := t.lines[namespace]
	if len(line) > 1 {
		t.lines[namespace] = line[1:]
		t.order = append(t.order, namespace)
	} else {
		delete(t.lines, namespace)
	}
	t.count--
	return line[0]
}

// Len implements workqueue.Queue.
func (t *turns) Len() int { return t.count }

// Touch implements workqueue.Queue. A repeated request keeps its place.
func (t *turns) Touch(ctrl.Request) {}
