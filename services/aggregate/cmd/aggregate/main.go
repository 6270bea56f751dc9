// Command aggregate keeps hourly sales in PostgreSQL: see package aggregate.
package main

import (
	"os"

	"github.com/millrace-io/millrace/pkg/app"
	"github.com/millrace-io/millrace/services/aggregate"
)

// version is set when a release is built.
var version = "dev"

func main() { os.Exit(app.Main(aggregate.Program(version))) }
