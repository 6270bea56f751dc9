// Command cdc captures a PostgreSQL read replica into Kafka.
package main

import (
	"os"

	"github.com/millrace-io/millrace/pkg/app"
	"github.com/millrace-io/millrace/services/cdc"
)

var version = "dev" // set by the linker

func main() { os.Exit(app.Main(cdc.Program(version))) }
