// Command demo is the demo store: its database, a trickle of orders and the storefront page.
package main

import (
	"os"

	"github.com/millrace-io/millrace/pkg/app"
	"github.com/millrace-io/millrace/services/demo"
)

// version is set by the linker.
var version = "dev"

func main() { os.Exit(app.Main(demo.Program(version))) }
