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

package sign

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/go-openapi/runtime"
	rekorclient "github.com/sigstore/rekor/pkg/client"
	"github.com/sigstore/rekor/pkg/generated/client/entries"
	"github.com/sigstore/rekor/pkg/generated/models"
	"github.com/sigstore/rekor/pkg/types"
	sgsign "github.com/sigstore/sigstore-go/pkg/sign"
	"github.com/sigstore/sigstore-go/pkg/util"

	"github.com/image-source/image-source-controller/pkg/limit"
)

const (
	// logTimeout bounds one request to a log, which may take its time to answer.
	logTimeout = 90 * time.Second
	// maxLogAnswer bounds an answer of a log, in bytes: an entry takes some 10 KiB.
	maxLogAnswer = 1 << 20
)

// rekor returns a log. It is given one second chance.
func rekor(address string) (*sgsign.Rekor, error) {
	client, err := rekorclient.GetRekorClient(address, rekorclient.WithUserAgent(util.ConstructUserAgent()), rekorclient.WithRetryCount(1))
	if err != nil {
		return nil, err
	}
	return sgsign.NewRekor(&sgsign.RekorOptions{Client: bounded{client.Entries}, Timeout: logTimeout, Version: 1}), nil
}

// bounded is a log whose answers are bounded, complete and about what it was sent: its
// client reads answers of any size, and takes the rest for granted.
type bounded struct{ sgsign.RekorClient }

// CreateLogEntry implements sgsign.RekorClient.
func (b bounded) CreateLogEntry(params *entries.CreateLogEntryParams, options ...entries.ClientOption) (*entries.CreateLogEntryCreated, error) {
	created, err := b.RekorClient.CreateLogEntry(params, append(options, readToLimit)...)
	if err != nil {
		return nil, err
	}
	entry := created.Payload[created.ETag]
	if !isComplete(entry) {
		return nil, errors.New("the answer of the log is not an entry with a proof of inclusion")
	}
	return created, checkRecorded(params.Context, entry, params.ProposedEntry)
}

// checkRecorded refuses an entry that does not record what was proposed: no reader would
// accept our signature for it. A log records the canonical form of what it is sent.
func checkRecorded(ctx context.Context, entry models.LogEntryAnon, proposed models.ProposedEntry) error {
	sent, err := types.UnmarshalEntry(proposed)
	if err != nil {
		return err
	}
	expected, err := types.CanonicalizeEntry(ctx, sent)
	if err != nil {
		return err
	}
	if body, _ := entry.Body.(string); body != base64.StdEncoding.EncodeToString(expected) {
		return errors.New("the answer of the log is an entry about something else, expected one with this signature, its payload and its public key; try another log")
	}
	return nil
}

func isComplete(entry models.LogEntryAnon) bool {
	if entry.LogID == nil || entry.LogIndex == nil || entry.IntegratedTime == nil || entry.Verification == nil {
		return false
	}
	proof := entry.Verification.InclusionProof
	return proof != nil && proof.LogIndex != nil && proof.RootHash != nil && proof.TreeSize != nil && proof.Checkpoint != nil
}

func readToLimit(operation *runtime.ClientOperation) {
	reader := operation.Reader
	operation.Reader = runtime.ClientResponseReaderFunc(func(answer runtime.ClientResponse, consumer runtime.Consumer) (any, error) {
		text, err := limit.ReadAll(answer.Body(), maxLogAnswer)
		if err != nil {
			return nil, fmt.Errorf("cannot read the answer of the log: %w", err)
		}
		return reader.ReadResponse(readAnswer{answer, text}, consumer)
	})
}

// readAnswer is an answer that was read to its end.
type readAnswer struct {
	runtime.ClientResponse

	text []byte
}

// Body implements runtime.ClientResponse.
func (r readAnswer) Body() io.ReadCloser { return io.NopCloser(bytes.NewReader(r.text)) }
