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

package limit

import (
	"fmt"
	"regexp"
	"regexp/syntax"

	"github.com/image-source/image-source-controller/pkg/fault"
)

// MaxExpression bounds a regular expression, in bytes.
const MaxExpression = 1 << 10

// maxProgram and maxRanges bound the program that an expression is compiled to, in
// instructions, and in the ranges of characters that these have. An expression of
// MaxExpression characters without repetitions stays below.
const maxProgram, maxRanges = 1100, 3000

// maxClasses bounds the classes of Unicode in an expression. Hundreds of them beside each
// other take a second to read. Where an expression asks for either case of a letter,
// maxFolded bounds what may end a range of characters far from ASCII: of such a range,
// each of up to 125,000 characters is looked up.
const maxClasses, maxFolded = 16, 2

var (
	// classes matches the start of the name of a class of Unicode.
	classes = regexp.MustCompile(`\\[pP]`)
	// folds matches a flag that asks for either case of a letter.
	folds = regexp.MustCompile(`\(\?[imsU-]*i`)
	// far matches a character beyond ASCII, and the start of the number of one.
	far = regexp.MustCompile(`[^\x00-\x7f]|\\x\{`)
)

// Expression compiles a regular expression, as regexp.Compile does. It bounds the cost
// before it reads and compiles: 1 KiB of text can take seconds to read, and 16 KiB become a
// program of hundreds of MiB.
//
// The error says, for the end of a sentence about the expression, what is wrong with it.
func Expression(text string) (*regexp.Regexp, error) {
	if size := len(text); size > MaxExpression {
		return nil, fmt.Errorf("has %d bytes, expected at most %d", size, MaxExpression)
	}
	named := len(classes.FindAllStringIndex(text, -1))
	switch {
	case named > maxClasses:
		return nil, fmt.Errorf("is too complex: has %d classes of Unicode, expected at most %d", named, maxClasses)
	case folds.MatchString(text) && named+len(far.FindAllStringIndex(text, -1)) > maxFolded:
		return nil, fmt.Errorf("is too complex: expected at most %d characters beyond ASCII and classes of Unicode with the flag i", maxFolded)
	}
	parsed, err := syntax.Parse(text, syntax.Perl)
	if err != nil {
		return nil, fmt.Errorf("is not a regular expression: %s", fault.Words(err.Error()))
	}
	if instructions(parsed) > maxProgram {
		return nil, fmt.Errorf("is too complex: expected a program of at most %d instructions; use * or + in place of large repetitions", maxProgram)
	}
	program, err := syntax.Compile(parsed.Simplify())
	if err != nil {
		return nil, fmt.Errorf("is not a regular expression: %s", fault.Words(err.Error()))
	}
	ranges := 0
	for _, instruction := range program.Inst {
		ranges += len(instruction.Rune) / 2
	}
	if len(program.Inst) > maxProgram || ranges > maxRanges {
		return nil, fmt.Errorf("is too complex: expected at most %d instructions and %d ranges of characters", maxProgram, maxRanges)
	}
	return regexp.Compile(text)
}

// instructions estimates the size of the program for an expression, and multiplies
// where that repeats a part. It returns at most maxProgram+1.
func instructions(expression *syntax.Regexp) int {
	parts := 0
	for _, part := range expression.Sub {
		parts = min(parts+instructions(part), maxProgram+1)
	}
	switch expression.Op {
	case syntax.OpRepeat:
		parts *= max(expression.Min, expression.Max, 1)
	case syntax.OpLiteral:
		parts = len(expression.Rune)
	default:
		parts++
	}
	return min(parts, maxProgram+1)
}
