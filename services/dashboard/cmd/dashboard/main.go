// Command dashboard serves the sales page and the API behind it.
package main

import (
	"os"

	"github.com/millrace-io/millrace/pkg/app"
	"github.com/millrace-io/millrace/services/dashboard"
)

// version is set by the linker.
var version = "dev"

func main() { os.Exit(app.Main(dashboard.Program(version))) }
