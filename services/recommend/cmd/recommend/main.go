// Command recommend answers what to show a shopper.
package main

import (
	"os"

	"github.com/millrace-io/millrace/pkg/app"
	"github.com/millrace-io/millrace/services/recommend"
)

var version = "dev" // set by the linker

func main() { os.Exit(app.Main(recommend.Program(version))) }
