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

package registry

import (
	"container/list"
	"sync"
	"time"
)

// cache is a bounded memory: the least recently used entry goes first, and an
// entry that nobody used for a while goes by itself.
type cache[K comparable, V any] struct {
	cacheOptions[V]

	mu    sync.Mutex
	order *list.List // of *entry; most recently used first
	items map[K]*list.Element
	total int64
}

type cacheOptions[V any] struct {
	// entries bounds how many there are.
	entries int
	// weight bounds the sum of what weigh returns, when it is not zero.
	weight int64
	weigh  func(V) int64
	// idle is how long an unused entry stays; zero is for ever.
	idle time.Duration
	// dropped is told of every entry that goes; it may be nil.
	dropped func(V)
	clock   func() time.Time
}

type entry[K comparable, V any] struct {
	key   K
	value V
	used  time.Time
}

func newCache[K comparable, V any](options cacheOptions[V]) *cache[K, V] {
	if options.weigh == nil {
		options.weigh = func(V) int64 { return 0 }
	}
	if options.dropped == nil {
		options.dropped = func(V) {}
	}
	return &cache[K, V]{cacheOptions: options, order: list.New(), items: map[K]*list.Element{}}
}

func (c *cache[K, V]) get(key K) (V, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.touch(key)
}

func (c *cache[K, V]) put(key K, value V) {
	c.replaceUnless(key, value, func(V) bool { return false })
}

// getOrPut returns the value of key, and makes it when there is none.
func (c *cache[K, V]) getOrPut(key K, build func() V) V {
	c.mu.Lock()
	defer c.mu.Unlock()
	if value, ok := c.touch(key); ok {
		return value
	}
	value := build()
	c.add(key, value)
	return value
}

// replaceUnless stores value unless keep wants the value that is there.
func (c *cache[K, V]) replaceUnless(key K, value V, keep func(old V) bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if item, ok := c.items[key]; ok {
		if keep(item.Value.(*entry[K, V]).value) {
			return
		}
		c.drop(item)
	}
	c.add(key, value)
}

func (c *cache[K, V]) remove(key K) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if item, ok := c.items[key]; ok {
		c.drop(item)
	}
}

// removeAll forgets every entry whose key matches; it looks at all of them.
func (c *cache[K, V]) removeAll(matches func(K) bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for key, item := range c.items {
		if matches(key) {
			c.drop(item)
		}
	}
}

func (c *cache[K, V]) touch(key K) (V, bool) {
	c.sweep()
	item, ok := c.items[key]
	if !ok {
		var none V
		return none, false
	}
	found := item.Value.(*entry[K, V])
	found.used = c.clock()
	c.order.MoveToFront(item)
	return found.value, true
}

func (c *cache[K, V]) add(key K, value V) {
	c.items[key] = c.order.PushFront(&entry[K, V]{key: key, value: value, used: c.clock()})
	c.total += c.weigh(value)
	c.sweep()
}

// sweep drops what is over the bounds, oldest use first. It stops at the first
// entry that may stay, so that its cost is what it drops.
func (c *cache[K, V]) sweep() {
	for item := c.order.Back(); item != nil; item = c.order.Back() {
		full := len(c.items) > c.entries || (c.weight > 0 && c.total > c.weight)
		expired := c.idle > 0 && c.clock().Sub(item.Value.(*entry[K, V]).used) > c.idle
		if !full && !expired {
			return
		}
		c.drop(item)
	}
}

func (c *cache[K, V]) drop(item *list.Element) {
	gone := c.order.Remove(item).(*entry[K, V])
	delete(c.items, gone.key)
	c.total -= c.weigh(gone.value)
	c.dropped(gone.value)
}
