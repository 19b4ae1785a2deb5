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

package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Effect is the effect of one step of a decision. Its zero value does nothing.
//
// +kubebuilder:validation:Enum=Pass;Hold;Refuse;Withdraw
type Effect string

const (
	// EffectPass lets the next step decide.
	EffectPass Effect = "Pass"
	// EffectHold keeps everything new back. The published artifact stays.
	EffectHold Effect = "Hold"
	// EffectRefuse ends the attempt with a failure. The published artifact stays.
	EffectRefuse Effect = "Refuse"
	// EffectWithdraw takes the published artifact away from consumers.
	EffectWithdraw Effect = "Withdraw"
)

const (
	// MaxSteps bounds the steps of a decision.
	MaxSteps = 16
	// MaxStepMessage bounds the message of a step, in bytes.
	MaxStepMessage = 256
)

// Step is one step of a decision.
type Step struct {
	// Name of the step: Permission, ImageObjects, Published, Suspend, Target, Resolve,
	// Trust, Build or Deliver.
	// +kubebuilder:validation:MaxLength=63
	Name string `json:"name"`
	// Policy is the name of the policy that the step is about; empty if there is no such one.
	// +kubebuilder:validation:MaxLength=253
	// +optional
	Policy string `json:"policy,omitempty"`
	// Effect of the step.
	Effect Effect `json:"effect"`
	// Reason is empty if the step passes, else the reason of a condition.
	// +kubebuilder:validation:MaxLength=64
	// +optional
	Reason string `json:"reason,omitempty"`
	// Message for a person. A failure whose words may be others at each attempt, as those of
	// a network are, has no message here: the condition Ready has the words of the first one.
	// +kubebuilder:validation:MaxLength=256
	// +optional
	Message string `json:"message,omitempty"`
	// Until is the time at which the effect ends by itself; empty if it does not.
	// +optional
	Until *metav1.Time `json:"until,omitempty"`
}

// Decision tells why an image is published, or is not.
type Decision struct {
	// Steps in the order in which they were taken. The last one decided.
	// +kubebuilder:validation:MaxItems=16
	// +listType=atomic
	// +optional
	Steps []Step `json:"steps,omitempty"`
}
