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

package serve

import (
	"testing"

	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/event"
)

func TestStrangersEnqueueAnObjectOnceInAWhile(t *testing.T) {
	enqueued := make(chan event.GenericEvent, 10)
	s := NewSupplier(SupplierOptions{Enqueue: enqueued})
	for range 5 {
		s.enqueue(types.NamespacedName{Namespace: "apps", Name: "app"})
	}
	s.enqueue(types.NamespacedName{Namespace: "apps", Name: "other"})
	if got := len(enqueued); got != 2 {
		t.Errorf("two objects were enqueued %d times", got)
	}
}
