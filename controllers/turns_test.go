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
	"fmt"
	"testing"

	. "github.com/onsi/gomega"
	"k8s.io/client-go/util/workqueue"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

func requestOf(namespace, name string) ctrl.Request {
	return ctrl.Request{NamespacedName: client.ObjectKey{Namespace: namespace, Name: name}}
}

func TestNamespacesTakeTurns(t *testing.T) {
	g := NewWithT(t)
	queue := newQueue("turns-test", workqueue.DefaultTypedControllerRateLimiter[ctrl.Request]())
	defer queue.ShutDown()
	for i := range 1000 {
		queue.Add(requestOf("many", fmt.Sprint(i)))
	}
	queue.Add(requestOf("few", "a"))
	queue.Add(requestOf("few", "b"))
	queue.Add(requestOf("many", "0")) // keeps its place
	queue.Add(requestOf("last", "a"))
	g.Expect(queue.Len()).To(Equal(1003))

	var got []string
	for range 1003 {
		request, _ := queue.Get()
		got = append(got, request.String())
		queue.Done(request)
	}
	g.Expect(got[:8]).To(Equal([]string{"many/0", "few/a", "last/a", "many/1", "few/b", "many/2", "many/3", "many/4"}))
	g.Expect(got[1002]).To(Equal("many/999"))
	g.Expect(queue.Len()).To(BeZero())
	queue.Add(requestOf("many", "0"))
	g.Expect(queue.Len()).To(Equal(1))
}
