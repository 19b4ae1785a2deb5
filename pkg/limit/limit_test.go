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

package limit_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	. "github.com/onsi/gomega"

	"github.com/image-source/image-source-controller/api/v1alpha1"
	"github.com/image-source/image-source-controller/pkg/fault"
	"github.com/image-source/image-source-controller/pkg/limit"
)

func TestADocumentWithinItsLimitsIsOutlined(t *testing.T) {
	g := NewWithT(t)
	document := []byte(` {"Few":[{"x":[1,2]},[],null],"any":[1,2,3,4],"object":{"a":"b"},"none":null} `)
	limits := limit.JSON{Values: 22, Elements: 3, Lists: []string{"few"}}
	_, err := limits.Scan("the thing", document)
	g.Expect(err).To(MatchError(ContainSubstring("more than the 22 JSON values")))
	limits.Values++
	outline, err := limits.Scan("the thing", document)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(outline.Lengths).To(Equal(map[string]int{"few": 3, "any": 4, "object": 0, "none": 0}))
	g.Expect(outline.Values).To(Equal(23))
	g.Expect(outline.Has("few")).To(BeTrue())
	g.Expect(outline.Has("x")).To(BeFalse(), "it is not at the top")
}

func TestWhatIsNoDocumentIsRefused(t *testing.T) {
	limits := limit.JSON{Values: 100, Elements: 3, Lists: []string{"few"}}
	invalid, exceeded := v1alpha1.ReasonInvalidArtifact, v1alpha1.ReasonLimitExceeded
	for name, tc := range map[string]struct{ document, reason, words string }{
		"nothing":                  {"", invalid, "the thing is not a JSON object"},
		"a list":                   {"[]", invalid, "not a JSON object"},
		"half of it":               {`{"a":[1,`, invalid, "not valid JSON"},
		"a key that is no string":  {`{1:2}`, invalid, "not valid JSON"},
		"a value that is missing":  {`{"a":}`, invalid, "not valid JSON"},
		"no end":                   {`{"a":1`, invalid, "not valid JSON"},
		"two documents":            {`{}{}`, invalid, "bytes after its end"},
		"garbage behind it":        {`{} x`, invalid, "bytes after its end"},
		"a key twice":              {`{"a":1,"a":2}`, invalid, `the key "a" twice`},
		"a key in two cases":       {`{"layers":[],"LAYERS":[]}`, invalid, `the key "layers" twice`},
		"a key with a long s":      {`{"layers":[],"layerſ":[]}`, invalid, `the key "layers" twice`},
		"a key with a Kelvin sign": {`{"k":1,"K":[]}`, invalid, `the key "k" twice`},
		"a long key twice":         {`{"` + strings.Repeat("x", 70) + `":1,"` + strings.Repeat("x", 70) + `":1}`, invalid, `"` + strings.Repeat("x", 64) + `" twice`},
		"too many scalars":         {`{"a":[` + strings.Repeat("0,", 200) + `0]}`, exceeded, "the thing has more than the 100 JSON values that are read"},
		"a key twice inside":       {`{"a":{"b":[{"c":1},{"c":1,"d":[{}],"c":1}]}}`, invalid, `the key "c" twice`},
		"a digest in two cases":    {`{"layers":[{"digest":"a","DIGEST":"b"}]}`, invalid, `the key "DIGEST" twice`},
		"an annotation twice":      {`{"layers":[{"annotations":{"a":"b","a":"c"}}]}`, invalid, `the key "a" twice`},
		"too many keys":            {`{"a":{` + manyKeys(60) + `}}`, exceeded, "100 JSON values"},
		"too deep":                 {`{"a":` + strings.Repeat("[", 200), exceeded, "100 JSON values"},
		"too many in all":          {`{` + manyKeys(101) + `}`, exceeded, "100 JSON values"},
		"a long list of objects":   {`{"few":[{},{},{},{}]}`, exceeded, "the thing has more than the 3 few that are read"},
		"a long list of scalars":   {`{"few":[null,0,"",true]}`, exceeded, "more than the 3 few"},
		"a long list in capitals":  {`{"FEW":[[],[],[],[]]}`, exceeded, "more than the 3 few"},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			_, err := limits.Scan("the thing", []byte(tc.document))
			f := &fault.Error{}
			g.Expect(errors.As(err, &f)).To(BeTrue(), "%v", err)
			g.Expect(f.Reason).To(Equal(tc.reason))
			g.Expect(f.Class).To(Equal(fault.Stall))
			g.Expect(f.Error()).To(ContainSubstring(tc.words))
		})
	}
}

func manyKeys(n int) string {
	keys := make([]string, n)
	for i := range keys {
		keys[i] = `"k` + strings.Repeat("x", i) + `":0`
	}
	return strings.Join(keys, ",")
}

// Words that are no fields are other ones in another case, for every reader.
func TestWordsInTwoCasesAreTwoWords(t *testing.T) {
	for _, document := range []string{
		`{"layers":[{"annotations":{"a":"b","A":"c"}}],"annotations":{"a":"b","A":"c"}}`,
		`{"config":{"Labels":{"maintainer":"a","Maintainer":"b"},"Volumes":{"/a":{},"/A":{}}}}`,
		`{"predicate":{"env":[{"Path":"a","PATH":"b"}]}}`,
		`{"a":"x","b":{"a":"a","c":{"a":["a","a",{"a":"a"}]}}}`,
	} {
		_, err := limit.JSON{Values: 100}.Scan("it", []byte(document))
		NewWithT(t).Expect(err).NotTo(HaveOccurred(), document)
	}
}

func numberedKeys(n int) string {
	var keys strings.Builder
	for i := range n {
		fmt.Fprintf(&keys, `"Key%d":0,`, i)
	}
	return keys.String() + `"":0`
}

// TestARefusalCostsLittle holds that a document is refused at its limit, and
// not when it was read to its end.
func TestARefusalCostsLittle(t *testing.T) {
	for name, document := range map[string]string{
		"scalars": `{"a":[` + strings.Repeat("0,", 2<<20) + `0]}`,
		"objects": `{"layers":[` + strings.Repeat("{},", 4<<20/3) + `{}]}`,
		"depth":   `{"a":` + strings.Repeat("[", 4<<20),
		"names":   `{"a":{` + numberedKeys(4<<20/12) + `}}`,
		"empty":   `{"a":[` + strings.Repeat(`{"a":{}},`, 4<<20/9) + `{}]}`,
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			body := []byte(document)
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			_, err := limit.Manifest().Scan("the manifest", body)
			runtime.ReadMemStats(&after)
			g.Expect(fault.Of(err, "").Reason).To(Equal(v1alpha1.ReasonLimitExceeded))
			g.Expect(after.TotalAlloc - before.TotalAlloc).To(BeNumerically("<", 4<<20))
		})
	}
}

// Expressions of 1 KiB that take seconds to read, which nothing ends, are not read.
func TestAnExpressionIsReadInLittleTime(t *testing.T) {
	for name, expression := range map[string]string{
		"ranges in either case":             `(?i)[` + strings.Repeat("B-\U0001e942", 169) + `]`,
		"ranges of numbers in either case":  `(?i)[` + strings.Repeat(`B-\x{1e942}`, 92) + `]`,
		"ranges beside each other":          `(?i)` + strings.Repeat("[B-\U0001e942]", 125),
		"ranges in a group":                 `(?ms-U:(?mi-s:[` + strings.Repeat("B-\U0001e942", 165) + `]))`,
		"classes":                           `[` + strings.Repeat(`\pL`, 340) + `]`,
		"classes that are all but a class":  `[^` + strings.Repeat(`\PL`, 340) + `]`,
		"names of classes in either case":   `(?i)[` + strings.Repeat(`\p{Greek}`, 100) + `]`,
		"alternatives":                      strings.Repeat("(a|b)", 200),
		"what is left, at the most, of all": `(?i)[B-\x{1e942}B-\x{1e942}` + strings.Repeat(`\W`, 490) + `]`,
	} {
		t.Run(name, func(t *testing.T) {
			start := time.Now()
			_, _ = limit.Expression(expression)
			NewWithT(t).Expect(time.Since(start)).To(BeNumerically("<", 500*time.Millisecond))
		})
	}
}

// FuzzScan holds that what is passed is what Go's decoder takes, so that
// nothing is decoded which was not counted.
func FuzzScan(f *testing.F) {
	f.Add([]byte(`{"layers":[{"a":1}],"x":{"y":[null]}}`))
	f.Add([]byte(`{"a":1}x`))
	f.Fuzz(func(t *testing.T, document []byte) {
		outline, err := limit.JSON{Values: 50, Elements: 5, Lists: []string{"layers"}}.Scan("it", document)
		if err != nil {
			return
		}
		var decoded map[string]any
		if err := json.Unmarshal(document, &decoded); err != nil {
			t.Fatalf("passed %q: %v", document, err)
		}
		for key, value := range decoded {
			elements, _ := value.([]any)
			same := 0
			for name, length := range outline.Lengths {
				if strings.EqualFold(name, key) && length == len(elements) {
					same++
				}
			}
			if same != 1 {
				t.Fatalf("%q has %d elements in %q: %v", document, len(elements), key, outline)
			}
		}
		if len(decoded) != len(outline.Lengths) || outline.Values > 50 || outline.Lengths["layers"] > 5 {
			t.Fatalf("%q is outlined as %v", document, outline)
		}
	})
}

func TestReadingEndsAtTheLimit(t *testing.T) {
	g := NewWithT(t)
	g.Expect(limit.ReadAll(strings.NewReader("12345"), 5)).To(BeEquivalentTo("12345"))
	_, err := limit.ReadAll(strings.NewReader("123456"), 5)
	g.Expect(err).To(MatchError(limit.ErrTooLong))
	broken := errors.New("broken")
	_, err = limit.ReadAll(iotest.ErrReader(broken), 5)
	g.Expect(err).To(MatchError(broken))
}

func TestDirectivesThatShortenTagsAreFound(t *testing.T) {
	for text, want := range map[string]bool{
		"%TAG !a! b\n---\na\n":           true,
		"\ufeff%TAG !a! b\n---\na\n":     true,
		"a\n...\n%TAG !a! b\n---\na\n":   true,
		"a\r...\r%TAG !a! b\r---\ra\r":   true,
		"a\n...\u2028%TAG !a! b\n---\na": true,
		"a: |\n  %TAG%\nb: %TAG\n":       false,
		"%YAML 1.1\n---\na: '%TAG'\n":    false,
		"":                               false,
	} {
		NewWithT(t).Expect(limit.HasTagDirective([]byte(text))).To(Equal(want), "%q", text)
	}
}
