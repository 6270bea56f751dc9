// Command standalone is all of Millrace in one process, with a demo store.
package main

import (
	"os"

	"github.com/millrace-io/millrace/pkg/app"
	"github.com/millrace-io/millrace/services/standalone"
)

// version is set by the linker.
var version = "dev"

func main() { os.Exit(app.Main(standalone.Program(version))) }
