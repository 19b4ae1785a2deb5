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

// image-source-controller publishes the images that Flux ImagePolicies pick as
// Flux ExternalArtifacts.
package main

import (
	"os"

	"github.com/spf13/pflag"
	ctrl "sigs.k8s.io/controller-runtime"

	"github.com/fluxcd/pkg/runtime/logger"

	"github.com/image-source/image-source-controller/pkg/operator"
)

// version is set when a release is built.
var version = "dev"

func main() {
	o := &operator.Options{Version: version}
	fs := pflag.NewFlagSet(operator.Name, pflag.ExitOnError)
	o.BindFlags(fs)
	// ExitOnError: a flag that cannot be read never returns.
	_ = fs.Parse(os.Args[1:])
	logger.SetLogger(logger.NewLogger(o.Flux.Log))
	operator.SpareMemory()
	if err := operator.Run(ctrl.SetupSignalHandler(), o); err != nil {
		ctrl.Log.Error(err, "stopped")
		os.Exit(1)
	}
}
